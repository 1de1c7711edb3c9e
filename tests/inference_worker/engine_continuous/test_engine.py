"""What the engine does apart from being exact, which test_exact.py holds."""

import inspect
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.exact import drive, make_sentences
from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.engine import (
    ContinuousEngine,
    MemoryBudgetTooSmall,
    open_engine,
)
from inference_worker.engine.continuous.rules import BOUND_SLACK_TOKENS, Rules
from inference_worker.engine.protocol import Engine, Sentence

GREEDY = Rules(beams=1, max_length=30)
BEAMS = Rules(beams=3, max_length=30, hypotheses=2)

MakeEngine = Callable[..., ContinuousEngine]


def sentences_for(engine: ContinuousEngine, count: int) -> list[Sentence]:
    vocabulary = engine._architecture.vocabulary
    return make_sentences(vocabulary, count, random.Random(5))


def test_implements_the_protocol(make_engine: MakeEngine) -> None:
    engine: Engine = make_engine("flat", GREEDY)
    assert (engine.name, engine.device, engine.free) == ("torch", "cpu", engine.slots)


def test_a_step_reads_schedule_run_select_retire() -> None:
    source = inspect.getsource(ContinuousEngine._step)
    places = [source.index(f"self._{part}(") for part in ("schedule", "run", "select", "retire")]
    assert places == sorted(places)


@pytest.mark.parametrize("rules", [GREEDY, BEAMS])
def test_neighbours_do_not_matter(make_engine: MakeEngine, rules: Rules) -> None:
    engine = make_engine("deep", rules, 7)
    sentences = sentences_for(engine, 12)
    together = drive(engine, [sentences])
    narrow = make_engine("deep", rules, 1)
    for sentence in sentences:
        alone = drive(narrow, [[sentence]])[sentence.key]
        assert [one.tokens for one in alone] == [one.tokens for one in together[sentence.key]]


def test_a_saturated_engine_wastes_few_slots(make_engine: MakeEngine) -> None:
    engine = make_engine("long", GREEDY, 4)
    drive(engine, [sentences_for(engine, 100)])
    assert engine.occupied_slots / (engine.steps * engine.width) > 0.95


def test_drop_frees_slots_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine("long", BEAMS, 2)
    sentences = sentences_for(engine, 6)
    engine.admit(sentences)
    engine.step()
    assert engine.free == engine.slots - 6

    engine.drop([sentence.key for sentence in sentences[:5]])

    assert engine.free == engine.slots - 1
    assert set(drive(engine, [])) == {sentences[5].key}


def test_reset_forgets_everything(make_engine: MakeEngine) -> None:
    engine = make_engine("long", BEAMS, 2)
    sentences = sentences_for(engine, 5)
    wanted = drive(make_engine("long", BEAMS, 2), [sentences])
    engine.admit(sentences)
    engine.step()

    engine.reset()

    assert engine.free == engine.slots
    assert drive(engine, [sentences]) == wanted


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_halves_the_slots_and_goes_on(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    engine = make_engine("long", BEAMS, 8)
    sentences = sentences_for(engine, 12)
    wanted = drive(make_engine("long", BEAMS, 8), [sentences])
    forward, calls = engine._decoder.forward, iter(range(1000))

    def failing(*arguments: object) -> torch.Tensor:
        if next(calls) == 3:
            raise failure
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine._decoder, "forward", failing)
    found = drive(engine, [sentences])

    assert engine.width == 4
    assert {key: [one.tokens for one in kept] for key, kept in found.items()} == {
        key: [one.tokens for one in kept] for key, kept in wanted.items()
    }


def test_any_other_failure_is_the_callers(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine("long", GREEDY, 8)

    def broken(*_: object) -> None:
        raise RuntimeError("expected scalar type Float")

    monkeypatch.setattr(engine._encoder, "encode", broken)
    engine.admit(sentences_for(engine, 1))
    with pytest.raises(RuntimeError, match="scalar type"):
        engine.step()
    assert engine.width == 8


def test_the_last_slot_is_not_halved(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine("long", GREEDY, 1)

    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(engine._encoder, "encode", full)
    engine.admit(sentences_for(engine, 1))
    with pytest.raises(MemoryError):
        engine.step()


def test_a_bound_cuts_runaways(checkpoint: Callable[[str], Checkpoint]) -> None:
    rules = Rules(beams=2, max_length=200, length_bound=1.0)
    engine = ContinuousEngine(checkpoint("long"), rules, width=4)
    sentences = sentences_for(engine, 20)
    found = drive(engine, [sentences])
    for sentence in sentences:
        tokens = found[sentence.key][0].tokens
        assert len(tokens) + 2 <= len(sentence.source) + BOUND_SLACK_TOKENS


def test_refuses_sources_it_has_no_room_for(make_engine: MakeEngine) -> None:
    engine = make_engine("flat", GREEDY)
    for source in ((), tuple(range(257))):
        with pytest.raises(ValueError, match="does not fit"):
            engine.admit([Sentence(1, source, 7)])
    assert engine.free == engine.slots


def test_the_memory_budget_decides_the_width(small: Path) -> None:
    widths = [
        open_engine(small, Rules(), memory_mib=mib, width=32, compute_type="float32").width
        for mib in (60, 100, 4000)
    ]
    assert 1 <= widths[0] < widths[1] < widths[2] == 32
    shorter = open_engine(
        small, Rules(), memory_mib=60, width=32, compute_type="float32", source_tokens=130
    )
    assert shorter.width > widths[0]
    with pytest.raises(ValueError, match="does not fit"):
        shorter.admit([Sentence(1, tuple(range(131)), 8107)])
    with pytest.raises(MemoryBudgetTooSmall, match=r"take \d+ MiB"):
        open_engine(small, Rules(), memory_mib=20, width=32, compute_type="float32")
