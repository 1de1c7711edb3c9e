"""Tests of ``inference_worker.worker``: its three stages, turned by hand one after the other."""

import logging

import pytest

from broker.warnings import warning
from inference_worker.draft import LanguageModel
from inference_worker.tokens import Vocabulary
from tests.inference_worker.engines import Echo, raising
from tests.inference_worker.stage import Stage, pieces


def test_records_come_back_with_their_layout(stage: Stage) -> None:
    texts = ["One. Two!\r\n\r\n - Three. 4\n", "Where is it?", "  \n", "", "12 %s 😀"]
    records = stage.broker.add(*texts)
    stage.settle(records)
    assert stage.broker.texts(records) == texts
    assert stage.broker.discarded == []


def test_what_has_no_sentence_needs_no_engine(stage: Stage) -> None:
    records = stage.broker.add("", " \n ", "42")
    stage.turn()
    assert stage.broker.texts(records) == ["", " \n ", "42"]
    assert stage.engine.batches == []


def test_details_say_what_happened(stage: Stage) -> None:
    (record,) = stage.broker.add("One. Two.")
    stage.settle([record])
    details = stage.broker.outcomes[record.place].details
    assert details is not None
    assert (details.model, details.worker, details.attempts) == ("small", "worker-1", 1)
    assert (details.sentences, details.queue_ms, details.warnings) == (2, 250.0, [])
    assert details.tokenize_ms > 0
    assert details.inference_ms > 0


def test_a_long_text_goes_through_in_parts(stage: Stage) -> None:
    text = "so " * 500 + "on."
    (record,) = stage.broker.add(text)
    stage.settle([record])
    assert stage.broker.texts([record]) == [text]
    assert len(stage.engine.batches) > 1


def test_text_in_the_target_language_is_left_alone(stage: Stage) -> None:
    (record,) = stage.broker.add("Guten Tag.", source="de")
    stage.settle([record])
    outcome = stage.broker.outcomes[record.place]
    assert outcome.text == "Guten Tag."
    assert outcome.details is not None
    assert outcome.details.warnings == [warning("same_language", 1, 1)]


def test_a_translation_that_was_cut_off_carries_a_warning(vocabulary: Vocabulary) -> None:
    stage = Stage(LanguageModel("small", "r1", vocabulary, 64, max_length=4))
    records = stage.broker.add("Yes.", "This has many more pieces than two.")
    stage.settle(records)
    warnings = [d.warnings for r in records if (d := stage.broker.outcomes[r.place].details)]
    assert warnings[1] == [warning("truncated", 1, 1)]


def test_an_unknown_language_fails_its_record_alone(stage: Stage) -> None:
    records = stage.broker.add("One.", "Two.", source="tlh") + stage.broker.add("Three.")
    stage.settle(records)
    assert stage.broker.codes(records) == ["unsupported_language"] * 2 + [None]


def test_a_text_that_cannot_be_encoded_fails_its_record_alone(stage: Stage) -> None:
    records = stage.broker.add("One.", "Two \ud800.", "Three.")
    stage.settle(records)
    assert stage.broker.codes(records) == [None, "internal", None]


def test_logs_never_hold_source_text(
    model: LanguageModel, vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stage = Stage(model, Echo(fault=raising(pieces(vocabulary, "Secret one."))))
    records = stage.broker.add("Secret one.", "Secret two.", "Secret \ud800 three.")
    records += stage.broker.add("Secret four.", attempts=4)
    stage.settle(records)
    assert caplog.text
    assert "Secret" not in caplog.text


def test_a_dead_lease_thread_ends_the_loop(stage: Stage) -> None:
    stage.held.dead = True
    with pytest.raises(RuntimeError, match="lease thread"):
        stage.turn()


def test_a_drain_finishes_the_slots_and_hands_back_the_rest(stage: Stage) -> None:
    stage.engine.width = 0
    records = stage.broker.add(*[f"Sentence {n}." for n in range(9)])
    stage.turn(3)
    stage.engine.width = 1
    unread = stage.broker.add("Unread.")
    stage.worker.drain(stage.now_s, 30.0)
    assert not stage.worker.finished
    for _ in range(20):
        stage.turn()
    assert stage.worker.finished
    done = [r for r in records if r.place in stage.broker.outcomes]
    back = [r for r in records if r.place in stage.broker.returned]
    assert len(done) + len(back) == 9
    assert len(back) >= 1
    assert list(stage.broker.queues["bulk"]) == unread
    assert not stage.held.places


def test_at_the_end_of_the_grace_everything_goes_back(stage: Stage) -> None:
    stage.engine.width = 1
    records = stage.broker.add("One. Two. Three. Four. Five. Six.", "Seven.")
    stage.turn()
    stage.worker.drain(stage.now_s, 30.0)
    stage.turn()
    stage.now_s += 25.0
    stage.turn()
    assert stage.worker.finished
    assert stage.broker.returned == [record.place for record in records]
    assert not stage.held.places
    assert stage.engine.free == stage.engine.slots


def test_a_suspect_in_the_slots_is_not_made_fresh_again(stage: Stage) -> None:
    stage.engine.width = 0
    stage.broker.add("One.", attempts=2)
    stage.turn()
    stage.worker.drain(stage.now_s, 30.0)
    stage.now_s += 25.0
    stage.turn()
    assert stage.worker.finished
    assert stage.broker.returned == []
    assert stage.broker.outcomes == {}
    assert not stage.held.places
