"""Tests of ``inference_worker.quality.remedies``."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.quality.checks import Findings, examine
from inference_worker.quality.remedies import NGRAM, Remedy, remedy, shouts

PAIR = ("en", "de")


def made(source: str, *codes: str, translation: str = "Nein.") -> Remedy:
    found = remedy(source, translation, Counter(codes), PAIR)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_nothing_is_done_about_what_is_right() -> None:
    assert remedy("Where is the station?", "Wo?", Counter(), PAIR) is None


@pytest.mark.parametrize("code", ["copied", "wrong_script", "wrong_language", "empty"])
def test_nothing_is_tried_where_nothing_would_change(code: str) -> None:
    assert remedy("Where is it?", "Where is it?", Counter([code]), PAIR) is None  # type: ignore[list-item]


@pytest.mark.parametrize("code", ["repetition", "truncated", "length"])
def test_a_loop_may_not_repeat(code: str) -> None:
    found = made("Where is the station?", code)
    assert (found.text, found.ngram) == ("Where is the station?", NGRAM)
    assert found.restore("Wo?") == "Wo?"


def test_capitals_become_small_and_back() -> None:
    found = made("AM I LATE FOR {THE_NAME}?", "lost_placeholder")
    assert found.text == "Am I late for CD?"
    assert found.restore("Bin ich zu spät für CD?") == "BIN ICH ZU SPÄT FÜR {THE_NAME}?"


def test_capitals_do_not_come_back_where_there_are_none() -> None:
    found = remedy("WHERE IS IT?", "AAAA", Counter(["repetition"]), ("en", "ja"))
    assert found is not None
    assert found.restore("どこ？ OK") == "どこ？ OK"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WHERE IS THE STATION?", True),
        ("IBM AND NASA", True),
        ("Where is the STATION?", False),
        ("NASA", False),
        ("OK!", False),
        ("駅はどこですか。", False),
        ("", False),
    ],
)
def test_shouting(text: str, expected: bool) -> None:
    assert shouts(text, "ja" if "駅" in text else "en") is expected


def test_placeholders_give_way_to_words() -> None:
    found = made("Send {this} to a@example.org.", "lost_address")
    assert found.text == "Send CD to XX."
    assert found.restore("XX bekommt CD.") == "a@example.org bekommt {this}."
    assert found.restore("XX bekommt es.") is None
    assert found.restore("CD und CD für XX.") is None
    assert found.restore("CDs für XX.") is None


def test_a_word_of_the_text_is_no_mask() -> None:
    found = made("A CD for {name}.", "lost_placeholder")
    assert found.text == "A CD for XX."


def test_more_placeholders_than_words_stay_where_they_are() -> None:
    found = made("{a} {b} {c} is.", "lost_placeholder")
    assert found.text == "CD XX {c} is."


def test_lost_numbers_give_way_to_short_ones() -> None:
    found = made("Born on 1,250 in 1987.", "lost_number", translation="Geboren 1,250.")
    assert found.text == "Born on 1,250 in 23."
    assert found.restore("1.250, 23") == "1.250, 1987"
    assert found.restore("1.250, 123") is None


def test_emoji_stay_outside() -> None:
    found = made("🎉 I am 😀 happy! 😀😀", "lost_emoji")
    assert (found.before, found.text, found.after) == ("🎉 ", "I am happy!", " 😀 😀😀")
    assert found.restore("Froh!") == "🎉 Froh! 😀 😀😀"


def test_markup_around_a_sentence_stays_outside() -> None:
    found = made("<p><b>I know.</b></p>", "lost_placeholder")
    assert (found.before, found.text, found.after) == ("<p><b>", "I know.", "</b></p>")


def test_unknown_pieces_are_respelled() -> None:
    found = made("Perhaps.", "unknown")
    assert (found.text, found.respelled) == ("Perhaps.", True)


TEXTS = st.text(st.sampled_from("aZé {}%s$1😀<b>@.http:/日本12 👍🏽"), max_size=40)


@given(TEXTS)
def test_nothing_protected_is_lost_on_the_way(source: str) -> None:
    findings: Findings = examine(source, "Nein.", PAIR)
    found = remedy(source, "Nein.", findings, PAIR)
    if found is None:
        return
    back = found.restore(found.text)
    if back is None:  # a word is part of the text around it
        return
    again = examine(source.upper() if found.capitals else source, back, PAIR)
    assert again.keys().isdisjoint({"lost_emoji", "lost_placeholder", "lost_address"})
