"""A worker: three stages that hand records on to each other. Each has a thread of its own in a
process (``stages``), and in tests is turned by hand.

``intake`` (reads) → ``roster`` (waiting, inside) → ``decoding`` (engine) → ``outtake`` (writes)
"""

from typing import Protocol

from inference_worker.decoding import Decoding
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Engine
from inference_worker.hang import Watchdog
from inference_worker.holdings import Holder, Holdings
from inference_worker.intake import Intake, Source
from inference_worker.memory import SentenceMemory
from inference_worker.outtake import Outtake, Sink
from inference_worker.rate import Rate
from inference_worker.roster import Roster

HAND_BACK_S = 5.0  # before the grace ends, what is not finished goes back


class Queue(Source, Sink, Protocol):
    """Both ends of ``broker.consumer.Consumer``."""


class Worker:
    """A consumer, its leases and an engine, and the stages between them."""

    def __init__(
        self,
        consumer: Queue,
        leases: Holder,
        engine: Engine,
        model: LanguageModel,
        watchdog: Watchdog,
        memory: SentenceMemory | None = None,
        *,
        heartbeat_s: float,
        reclaim_s: float,
        started_ms: int,
    ) -> None:
        rate = Rate()
        self.roster = Roster(engine.slots)
        self._holdings = Holdings(leases)
        self.outtake = Outtake(consumer, self.roster, self._holdings, model, rate, memory)
        self.decoding = Decoding(
            engine, model, watchdog, self.roster, self._holdings, self.outtake, rate
        )
        self.intake = Intake(
            consumer,
            engine,
            model,
            self.roster,
            self._holdings,
            self.outtake,
            rate,
            memory,
            heartbeat_s=heartbeat_s,
            reclaim_s=reclaim_s,
            started_ms=started_ms,
        )

    def drain(self, now_s: float, grace_s: float) -> None:
        """Reads no more; finishes what is in the slots, as far as the grace allows."""
        self.intake.drain(now_s + max(0.0, grace_s - HAND_BACK_S))

    @property
    def finished(self) -> bool:
        """Whether a drained worker has nothing left to do."""
        return self.intake.closed and self._holdings.empty
