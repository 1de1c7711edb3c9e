"""Tests of ``inference_worker.normalisation``: what the model reads, and what the caller gets."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.draft import LanguageModel, prepared
from inference_worker.normalisation import normalised
from inference_worker.tokens import Vocabulary
from tests.inference_worker.parties import Broker

CONTROLS = "\x00\x07\x1b\x1f\x7f\x9b"
DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"
SCOTLAND = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"


@pytest.mark.parametrize("unseen", [*CONTROLS, *DIRECTIONS, "\u200b", "\ufeff", "\U000e0041"])
def test_what_nobody_sees_is_not_read(unseen: str) -> None:
    assert normalised(f"{unseen}Where is{unseen} the sta{unseen}tion?{unseen}") == (
        "Where is the station?"
    )


@pytest.mark.parametrize(
    "seen",
    [
        "Где вокзал?",
        "می\u200cخواهم",
        "क्\u200dष",
        "👩\u200d👩\u200d👧 ❤\ufe0f",
        SCOTLAND,
        "a b\u3000c",
        "",
    ],
)
def test_what_spells_words_is_read(seen: str) -> None:
    assert normalised(seen) == seen


@given(st.text(st.characters(exclude_characters=SCOTLAND[0])))
def test_nothing_but_controls_and_formats_is_left_out(text: str) -> None:
    kept = normalised(text)
    assert normalised(kept) == kept
    left_out = [char for char in text if not normalised(char)]
    assert "".join(char for char in text if normalised(char)) == kept
    assert {unicodedata.category(char) for char in left_out} <= {"Cc", "Cf", "Mn", "Cn"}
    assert not any(unicodedata.bidirectional(char) in ("RLO", "LRO") for char in kept)


def test_only_the_model_is_spared_them(vocabulary: Vocabulary) -> None:
    """Around sentences and in what is not translated they come back; in sentences they do not."""
    model = LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=12)
    text = "\x07\u202e42\u202c\n\u202eYes.\u202c\x00\t{na\u202eme}\n"
    draft = prepared(Broker().delivery(text, "bulk", 1, source="en", target="ja"), model, 1)
    (unit,) = draft.units
    assert unit.sentence.source == vocabulary.encode("Yes.", "en").ids
    draft.settle(0, "はい。")
    assert draft.outcome("w").text == "\x07\u202e42\u202c\nはい。\t{na\u202eme}\n"
    assert not draft.warnings
