"""Tests of ``inference_worker.decoding``: what breaks the engine is found, and its neighbours are
translated."""

from typing import Any

import pytest

from inference_worker.decoding import EngineBroken
from inference_worker.draft import LanguageModel
from inference_worker.tokens import Vocabulary
from tests.inference_worker.engines import Echo, raising
from tests.inference_worker.stage import Stage, pieces


@pytest.mark.parametrize("guilty", [0, 31, 63])
def test_a_poison_sentence_among_64_costs_one_record(
    model: LanguageModel, vocabulary: Vocabulary, guilty: int
) -> None:
    texts = [f"Sentence {n}." for n in range(64)]
    fault = raising(pieces(vocabulary, texts[guilty]))
    stage = Stage(model, Echo(slots=64, fault=fault))
    records = stage.broker.add(*texts)
    stage.settle(records)
    texts[guilty : guilty + 1] = [None]  # type: ignore[list-item]
    assert stage.broker.texts(records) == texts
    assert stage.broker.codes([records[guilty]]) == ["internal"]
    assert stage.engine.resets <= 7


def test_several_guilty_sentences_are_all_found(
    model: LanguageModel, vocabulary: Vocabulary
) -> None:
    faults = [raising(pieces(vocabulary, f"Sentence {n}.")) for n in (3, 4, 11)]

    def fault(inside: list[Any]) -> None:
        for one in faults:
            one(inside)

    stage = Stage(model, Echo(slots=16, fault=fault))
    records = stage.broker.add(*[f"Sentence {n}." for n in range(16)])
    stage.settle(records)
    failed = [n for n, code in enumerate(stage.broker.codes(records)) if code == "internal"]
    assert failed == [3, 4, 11]


def test_a_failure_of_the_batch_as_such_fails_nobody(model: LanguageModel) -> None:
    def too_large(inside: list[Any]) -> None:
        if len(inside) > 3:
            raise MemoryError

    stage = Stage(model, Echo(slots=16, fault=too_large))
    records = stage.broker.add(*[f"Sentence {n}." for n in range(16)])
    stage.settle(records)
    assert None not in stage.broker.texts(records)


def test_a_broken_engine_ends_the_worker_rather_than_every_record(model: LanguageModel) -> None:
    def always(inside: list[Any]) -> None:
        raise RuntimeError("device-side assert")

    stage = Stage(model, Echo(fault=always))
    stage.broker.add("One.", "Two.")
    with pytest.raises(EngineBroken):
        stage.turn(10)
    assert stage.broker.outcomes == {}
    assert len(stage.held.places) == 2


def test_fresh_work_waits_while_the_guilty_one_is_looked_for(
    model: LanguageModel, vocabulary: Vocabulary
) -> None:
    stage = Stage(model, Echo(slots=4, fault=raising(pieces(vocabulary, "Two."))))
    records = stage.broker.add("One.", "Two.", "Three.")
    stage.turn()
    later = stage.broker.add("Four.")
    stage.settle(records + later)
    assert stage.broker.codes(records + later) == [None, "internal", None, None]
    assert stage.engine.batches[-1] == [4]
