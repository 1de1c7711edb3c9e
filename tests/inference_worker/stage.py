"""A worker on a stage: its three stages turned by hand, everything around it in memory."""

from broker.wire import Delivery
from inference_worker.draft import LanguageModel
from inference_worker.hang import Watchdog
from inference_worker.memory import SentenceMemory
from inference_worker.tokens import Vocabulary
from inference_worker.worker import Worker
from tests.inference_worker.engines import Echo
from tests.inference_worker.parties import Broker, Held

HEARTBEAT_S = 5.0
RECLAIM_S = 4.0


class Stage:
    """A worker with everything around it, and a clock that moves a millisecond a turn."""

    def __init__(
        self,
        model: LanguageModel,
        engine: Echo | None = None,
        memory: SentenceMemory | None = None,
    ) -> None:
        self.broker = Broker()
        self.held = Held()
        self.engine = engine or Echo()
        self.pauses: list[float] = []
        self.now_s = 100.0
        self.worker = Worker(
            self.broker,
            self.held,
            self.engine,
            model,
            Watchdog(1_000.0),
            memory,
            heartbeat_s=HEARTBEAT_S,
            reclaim_s=RECLAIM_S,
            started_ms=1,
        )

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.pauses.append(self.worker.intake.turn(self.now_s))
            self.worker.decoding.turn(0.0)
            self.worker.outtake.turn(0.0)
            self.now_s += 0.001

    def settle(self, deliveries: list[Delivery]) -> None:
        """Turns until all of these have an outcome."""
        for _ in range(1_000):
            if all(delivery.place in self.broker.outcomes for delivery in deliveries):
                assert not self.held.places & {delivery.place for delivery in deliveries}
                return
            self.turn()
        raise AssertionError("records without an outcome after 1,000 turns")


def pieces(vocabulary: Vocabulary, text: str) -> tuple[int, ...]:
    return tuple(vocabulary.pieces(text))
