"""Tests of ``inference_worker.draft``: a record from text to sentences and back."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from inference_worker.draft import Draft, LanguageModel, failure, prepared
from inference_worker.quality.review import Reading
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
    assert [unit.case.unknown for unit in subject.units] == [1, 1]


def test_remarks_count_sentences(vocabulary: Vocabulary) -> None:
    subject = draft(vocabulary, "Yes. No. Oh.")
    subject.settle_reading(0, Reading("Ja.", 0.0, Counter(lost_number=3)), 1.0)
    subject.settle_reading(1, Reading("Nein.", 0.0, Counter(lost_number=1, unknown=2)), 3.0)
    subject.settle_reading(2, Reading("Oh.", 0.0, Counter(), mended=True), 2.0)
    details = subject.outcome("w").details
    assert details is not None
    assert details.warnings == [
        "lost_number: a number of the source is missing or changed (2 of 3 sentences)",
        "unknown: pieces of the source are unknown to the model and may be missing"
        " (1 of 3 sentences)",
        "mended: the first translation failed a check, a better one took its place"
        " (1 of 3 sentences)",
    ]


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
