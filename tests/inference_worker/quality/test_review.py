"""Tests of ``inference_worker.quality.review``: which translation is kept."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.warnings import MEANING, Code
from inference_worker.engine.protocol import Hypothesis
from inference_worker.quality.review import (
    SPOILED,
    Again,
    Case,
    Reading,
    Reviewer,
    SelfCheck,
    better,
)
from inference_worker.tokens import Vocabulary

PAIR = ("en", "de")


@pytest.fixture(scope="module")
def vocabulary(small: Path) -> Vocabulary:
    return Vocabulary(small)


def reviewer(vocabulary: Vocabulary, mode: SelfCheck = "retry", most: int = 64) -> Reviewer:
    return Reviewer(vocabulary, mode, longest=30, most_tokens=most)


def said(vocabulary: Vocabulary, *texts: str) -> list[Hypothesis]:
    return [Hypothesis(tuple(vocabulary.pieces(text)), -1.0 - at) for at, text in enumerate(texts)]


def test_the_likeliest_is_kept_if_it_passes(vocabulary: Vocabulary) -> None:
    found = reviewer(vocabulary).review(
        Case("In 1987.", PAIR), said(vocabulary, "Im Jahr 1987.", "1987.")
    )
    assert isinstance(found, Reading)
    assert (found.text, found.clean, found.mended) == ("Im Jahr 1987.", True, False)


def test_the_next_of_the_best_may_pass(vocabulary: Vocabulary) -> None:
    case, hypotheses = Case("In 1987.", PAIR), said(vocabulary, "1978.", "1997.", "1987.", "1987!")
    found = reviewer(vocabulary).review(case, hypotheses)
    assert isinstance(found, Reading)
    assert (found.text, found.clean, found.mended) == ("1987.", True, True)


def test_what_fails_is_tried_once_more(vocabulary: Vocabulary) -> None:
    subject = reviewer(vocabulary)
    first = subject.review(Case("In 1987.", PAIR), said(vocabulary, "In 7."))
    assert isinstance(first, Again)
    assert first.source == vocabulary.encode("In 23.", "en").ids
    kept = subject.review(first.case, said(vocabulary, "In 32.", "Im Jahr 23."))
    assert isinstance(kept, Reading)
    assert (kept.text, kept.clean, kept.mended) == ("Im Jahr 1987.", True, True)
    kept = subject.review(first.case, said(vocabulary, "In 32."))
    assert isinstance(kept, Reading)
    assert (kept.text, kept.findings, kept.mended) == ("In 7.", {"lost_number": 1}, False)


def test_a_loop_is_tried_with_an_ngram_of_its_own(vocabulary: Vocabulary) -> None:
    subject = reviewer(vocabulary)
    first = subject.review(Case("I know.", PAIR), said(vocabulary, "weiß weiß weiß weiß weiß"))
    assert isinstance(first, Again)
    assert (first.source, first.ngram) == (vocabulary.encode("I know.", "en").ids, 3)


@pytest.mark.parametrize("mode", ["off", "retry"])
def test_what_a_model_says_has_no_lines(vocabulary: Vocabulary, mode: SelfCheck) -> None:
    """Not even if it spells the end of one in bytes."""
    line, first, second = (
        tuple(vocabulary.pieces(text)) for text in ("\x0b", "Guten Tag.", "Gute Nacht.")
    )
    assert "\x0b" in vocabulary.decode(line + first + line + second)
    found = reviewer(vocabulary, mode).review(
        Case("Good day. Good night.", PAIR), [Hypothesis(line + first + line + second, 0.0)]
    )
    assert isinstance(found, Reading)
    assert found.text.split() == ["Guten", "Tag.", "Gute", "Nacht."]
    assert found.text.isprintable()


@pytest.mark.parametrize(("mode", "codes"), [("report", {"lost_number"}), ("off", set())])
def test_nothing_is_tried_unless_asked_for(
    vocabulary: Vocabulary, mode: SelfCheck, codes: set[str]
) -> None:
    found = reviewer(vocabulary, mode).review(
        Case("In 1987.", PAIR), said(vocabulary, "1978.", "1987.")
    )
    assert isinstance(found, Reading)
    assert (found.text, found.findings.keys(), found.mended) == ("1978.", codes, False)


def test_what_the_engine_tells_is_told_in_any_mode(vocabulary: Vocabulary) -> None:
    hypotheses = [Hypothesis(tuple(range(300, 330)), 0.0)]
    found = reviewer(vocabulary, "off").review(Case("Well.", PAIR, unknown=2), hypotheses)
    assert isinstance(found, Reading)
    assert found.findings == {"truncated": 1, "unknown": 2}
    assert not found.clean


def test_a_second_try_must_fit_the_engine(vocabulary: Vocabulary) -> None:
    found = reviewer(vocabulary, most=5).review(
        Case("In 1987 he came home again.", PAIR), said(vocabulary, "Er kam.")
    )
    assert isinstance(found, Reading)
    assert found.findings == {"lost_number": 1}


@pytest.mark.parametrize(
    ("first", "mended"), [("WO IST DER BAHNHOF?", False), ("Ja ja ja ja ja ja ja ja", True)]
)
def test_mended_is_only_what_had_failed(vocabulary: Vocabulary, first: str, mended: bool) -> None:
    """A sentence in capitals is tried twice whatever came out."""
    subject = reviewer(vocabulary)
    again = subject.review(Case("WHERE IS THE STATION?", PAIR), said(vocabulary, first))
    assert isinstance(again, Again)
    surer = Hypothesis(tuple(vocabulary.pieces("Wo ist die Station?")), -0.5)
    kept = subject.review(again.case, [surer])
    assert isinstance(kept, Reading)
    assert (kept.text, kept.clean, kept.mended) == ("WO IST DIE STATION?", True, mended)


READINGS = st.builds(
    Reading,
    text=st.just(""),
    score=st.floats(-9, 0),
    findings=st.dictionaries(st.sampled_from(list(MEANING)), st.integers(1, 3), max_size=3).map(
        Counter[Code]
    ),
)


@given(st.lists(READINGS, min_size=3, max_size=3))
def test_the_order_is_one(readings: list[Reading]) -> None:
    kept = set()
    for order in permutations(readings):
        best = order[0]
        for one in order[1:]:
            best = better(best, one)
        kept.add(best.rank)
    assert kept == {min(one.rank for one in readings)}


@given(READINGS, READINGS)
def test_what_spoils_weighs_more_than_what_lacks(one: Reading, other: Reading) -> None:
    spoiled = len(one.findings.keys() & SPOILED), len(other.findings.keys() & SPOILED)
    kept = better(one, other)
    if spoiled[0] < spoiled[1]:
        assert kept is one
    if not other.findings and one.findings:
        assert kept.mended


def tried(vocabulary: Vocabulary, source: str, *answers: str) -> tuple[Reading, list[str]]:
    """What is kept if the model answers like this, one after the other, and what it was given."""
    subject, given_texts = reviewer(vocabulary), []
    found = subject.review(Case(source, PAIR), said(vocabulary, answers[0]))
    for answer in answers[1:]:
        assert isinstance(found, Again)
        given_texts.append(vocabulary.decode(found.source[1:-1]))
        found = subject.review(found.case, said(vocabulary, answer))
    assert isinstance(found, Reading)
    return found, given_texts


def test_what_no_word_could_stand_for_is_translated_around(vocabulary: Vocabulary) -> None:
    kept, given_texts = tried(
        vocabulary, "Hello %s and %d.", "Hallo und.", "Hallo.", "Hallo.", "und"
    )
    assert given_texts == ["Hello CD and XX.", "Hello", "and"]
    assert (kept.text, kept.clean, kept.mended) == ("Hallo %s und %d.", True, True)


def test_more_than_there_are_words_for_are_translated_around_at_once(
    vocabulary: Vocabulary,
) -> None:
    kept, given_texts = tried(vocabulary, "%s and %d or {x}", "und oder", "und", "oder")
    assert given_texts == ["and", "or"]
    assert (kept.text, kept.mended) == ("%s und %d oder {x}", True)


def test_a_piece_that_runs_away_leaves_the_first_translation(vocabulary: Vocabulary) -> None:
    kept, _ = tried(vocabulary, "%s and %d or {x}", "und oder", "und " * 40)
    assert (kept.text, kept.mended) == ("und oder", False)


def test_a_piece_that_is_too_long_for_the_model_is_not_tried(vocabulary: Vocabulary) -> None:
    subject = reviewer(vocabulary, most=12)
    source = "%s and %d or {x} " + "and " * 20
    kept = subject.review(Case(source, PAIR), said(vocabulary, "und oder"))
    while isinstance(kept, Again):
        assert len(kept.source) <= 12
        kept = subject.review(kept.case, said(vocabulary, "und"))
    assert kept.text == "und oder"
