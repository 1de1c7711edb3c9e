"""Tests of ``inference_worker.draft``: a record from text to sentences and back."""

import json
import shutil
from pathlib import Path

import pytest

from inference_worker.draft import Draft, LanguageModel, failure, prepared
from inference_worker.tokens import Vocabulary
from tests.inference_worker.parties import Broker


def model(vocabulary: Vocabulary) -> LanguageModel:
    return LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=12)


def draft(vocabulary: Vocabulary, text: str, **record: str) -> Draft:
    return prepared(Broker().delivery(text, "bulk", 1, **record), model(vocabulary), first_key=7)


def test_sentences_carry_keys_languages_and_ids(vocabulary: Vocabulary) -> None:
    subject = draft(vocabulary, "Yes. No.\n42", source="en", target="ja")
    assert [unit.sentence.key for unit in subject.units] == [7, 8]
    for unit, text in zip(subject.units, ("Yes.", "No."), strict=True):
        assert unit.sentence.source == vocabulary.encode(text, "en").ids
        assert unit.sentence.target_language == vocabulary.language("ja")


def test_sentences_may_end_in_any_order(vocabulary: Vocabulary) -> None:
    subject = draft(vocabulary, " Yes. No.\n", source="en", target="ja")
    subject.settle(1, "いいえ。")
    assert not subject.done
    subject.settle(1, "いいえ。")
    assert not subject.done
    subject.settle(0, "はい。")
    assert subject.done
    assert subject.outcome("w").text == " はい。いいえ。\n"


def test_text_that_reads_like_tokens_stays_text(vocabulary: Vocabulary) -> None:
    text = "Say __ja__ or </s> to him."
    subject = draft(vocabulary, text)
    (unit,) = subject.units
    assert unit.sentence.source.count(vocabulary.end) == 1
    assert vocabulary.language("ja") not in unit.sentence.source
    subject.settle(0, vocabulary.decode(unit.sentence.source))
    assert subject.outcome("w").text == text


def test_pieces_the_model_never_saw_are_reported(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "model"))
    numbers = json.loads((folder / "vocab.json").read_text())
    del numbers["▁station"]
    (folder / "vocab.json").write_text(json.dumps(numbers))
    vocabulary = Vocabulary(folder)
    subject = draft(vocabulary, "The station. Where is the station?")
    for unit in subject.units:
        subject.settle(unit.spots[0].at, "")
    details = subject.outcome("w").details
    assert details is not None
    assert details.warnings == [
        "2 pieces of the text are unknown to the model: the translation may lack them"
    ]


def test_a_translation_at_the_length_limit_is_reported(vocabulary: Vocabulary) -> None:
    subject = draft(vocabulary, "Yes. No.")
    subject.settle(0, "Ja.")
    subject.settle(1, "Nein", cut=True)
    details = subject.outcome("w").details
    assert details is not None
    assert details.warnings == ["1 sentences reached the limit of 12 tokens and may be incomplete"]


@pytest.mark.parametrize("text", ["", "\n", "42 %s"])
def test_what_has_no_sentence_is_done_at_once(vocabulary: Vocabulary, text: str) -> None:
    subject = draft(vocabulary, text)
    assert subject.done
    assert subject.outcome("w").text == text


def test_a_failure_names_its_code(vocabulary: Vocabulary) -> None:
    outcome = failure(Broker().delivery("x", "bulk", 3), "small", "w", "poison", "why")
    assert outcome.text is None
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.detail) == ("poison", "why")
    assert outcome.details is not None
    assert outcome.details.attempts == 3
