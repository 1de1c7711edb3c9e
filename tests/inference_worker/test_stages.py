"""Tests of ``inference_worker.stages``: the worker's three threads at work."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from broker.errors import BrokerMisconfigured
from broker.wire import Completion, Delivery
from inference_worker.decoding import EngineBroken
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Finished, Sentence
from inference_worker.hang import Watchdog
from inference_worker.stages import Stages
from inference_worker.tokens import Vocabulary
from inference_worker.worker import Worker
from tests.inference_worker.engines import Echo
from tests.inference_worker.parties import Broker, Held
from tests.redis_server import wait_until

PATIENCE_S = 60.0


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_worker.stages.IDLE_S", 0.01)


class Waiting(Broker):
    """A broker whose reads wait until something ``arrived``, and whose writes can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.answering = threading.Event()
        self.answering.set()
        self.writing = threading.Event()

    def read(self, interactive: int, bulk: int, block_ms: int) -> list[Delivery]:
        found = super().read(interactive, bulk, block_ms)
        if not found and self.arrived.wait(block_ms / 1000):
            self.arrived.clear()
            found = super().read(interactive, bulk, block_ms)
        return found

    def complete(self, completions: Sequence[Completion]) -> int:
        self.writing.set()
        assert self.answering.wait(PATIENCE_S)
        return super().complete(completions)


class Theatre:
    """A worker with its threads, driven from the test's own."""

    def __init__(self, vocabulary: Vocabulary, engine: Echo | None = None) -> None:
        self.broker = Waiting()
        self.held = Held()
        self.engine = engine or Echo()
        model = LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=200)
        self.worker = Worker(
            self.broker,
            self.held,
            self.engine,
            model,
            Watchdog(1_000.0),
            heartbeat_s=5.0,
            reclaim_s=4.0,
            started_ms=1,
        )
        self.alive: set[str] = set()
        self.stages = Stages(self.worker, self)

    def progress(self, stage: str = "") -> None:
        self.alive.add(stage)

    def decode_until(self, predicate: Callable[[], object]) -> None:
        """Turns the middle stage until something is true."""

        def turned() -> object:
            self.stages.decode()
            return predicate()

        wait_until(turned, description="the worker gets there", timeout_s=PATIENCE_S)

    def drain(self) -> None:
        self.worker.drain(time.monotonic(), grace_s=60.0)
        self.broker.arrived.set()
        self.decode_until(lambda: self.worker.finished)


@pytest.fixture
def theatre(vocabulary: Vocabulary) -> Theatre:
    return Theatre(vocabulary)


def test_records_pass_through_all_threads(theatre: Theatre) -> None:
    records = theatre.broker.add("One. Two.", "", "Three.")
    with theatre.stages:
        theatre.decode_until(lambda: len(theatre.broker.outcomes) == 3)
        later = theatre.broker.add("Four.", lane="interactive")
        theatre.broker.arrived.set()
        theatre.decode_until(lambda: len(theatre.broker.outcomes) == 4)
        theatre.drain()
    assert theatre.broker.texts(records + later) == ["One. Two.", "", "Three.", "Four."]
    assert theatre.alive == {"intake", "decoding", "outtake"}
    assert not theatre.held.places


def test_the_engine_goes_on_while_redis_takes_its_time(vocabulary: Vocabulary) -> None:
    engine = Echo(width=1)
    theatre = Theatre(vocabulary, engine)
    theatre.broker.answering.clear()
    records = theatre.broker.add(*[f"Sentence {n}." for n in range(20)])
    with theatre.stages:
        theatre.decode_until(lambda: len(engine.batches) == 20)
        assert theatre.broker.writing.wait(PATIENCE_S)
        assert theatre.broker.outcomes == {}
        assert len(theatre.held.places) == 20
        theatre.broker.answering.set()
        theatre.drain()
    assert None not in theatre.broker.texts(records)


class Slow(Echo):
    """An echo whose steps last until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.stepping = threading.Event()
        self.go = threading.Event()

    def step(self) -> list[Finished]:
        self.stepping.set()
        assert self.go.wait(PATIENCE_S)
        return super().step()


def test_a_batch_is_read_and_prepared_while_a_step_runs(vocabulary: Vocabulary) -> None:
    engine = Slow()
    theatre = Theatre(vocabulary, engine)
    theatre.broker.add(*[f"Sentence {n}." for n in range(7)])

    def ahead() -> None:
        assert engine.stepping.wait(PATIENCE_S)
        theatre.broker.add(*[f"Later {n}." for n in range(7)])
        theatre.broker.arrived.set()
        wait_until(lambda: theatre.worker.roster.waiting >= 2, description="a batch is ahead")
        engine.go.set()

    helper = threading.Thread(target=ahead)
    helper.start()
    with theatre.stages:
        theatre.decode_until(lambda: len(theatre.broker.outcomes) == 14)
        theatre.drain()
    helper.join()


def test_an_intake_that_dies_ends_the_worker(theatre: Theatre) -> None:
    def refused(*anything: object) -> list[Delivery]:
        raise BrokerMisconfigured("Redis refuses this user")

    theatre.broker.read = refused  # type: ignore[method-assign]
    with pytest.raises(BrokerMisconfigured, match="refuses"), theatre.stages:
        theatre.decode_until(lambda: False)


def test_an_outtake_that_dies_ends_the_worker(theatre: Theatre) -> None:
    def broken(*anything: object) -> int:
        raise RuntimeError("a bug")

    theatre.broker.complete = broken  # type: ignore[method-assign]
    theatre.broker.add("One.")
    with pytest.raises(RuntimeError, match="a bug"), theatre.stages:
        theatre.decode_until(lambda: False)


def test_what_had_ended_is_written_before_a_broken_engine_ends_the_worker(
    vocabulary: Vocabulary,
) -> None:
    def fault(inside: list[Sentence]) -> None:
        if theatre.engine.batches[1:]:
            raise RuntimeError("device-side assert")

    theatre = Theatre(vocabulary, Echo(slots=1, width=1, fault=fault))
    theatre.broker.answering.clear()
    theatre.broker.add("One.", "Two.")

    def perform() -> None:
        with theatre.stages:
            try:
                theatre.decode_until(lambda: False)
            finally:
                theatre.broker.answering.set()
                theatre.broker.arrived.set()

    with pytest.raises(EngineBroken):
        perform()
    assert [outcome.text for outcome in theatre.broker.outcomes.values()] == ["One."]
