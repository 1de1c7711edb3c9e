"""What a worker talks to, in memory: a broker that keeps its promises, and leases that count."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from broker.errors import BrokerUnavailable
from broker.memory import Name
from broker.wire import LANES, Completion, Delivery, Lane, Outcome, Record, Verdict, WorkerEntry

Place = tuple[str, str]


class Broker:
    """The consumer's methods over deques. ``away`` makes every call raise BrokerUnavailable."""

    worker = "worker-1"

    def __init__(self) -> None:
        self.away = False
        self.queues: dict[Lane, deque[Delivery]] = {lane: deque() for lane in LANES}
        self.left: deque[list[Delivery]] = deque()  # groups that another worker left behind
        self.verdicts: dict[Place, Verdict] = {}
        self.outcomes: dict[Place, Outcome] = {}
        self.dead: list[Place] = []
        self.discarded: list[Place] = []
        self.returned: list[Place] = []
        self.heartbeats: list[tuple[WorkerEntry, int]] = []
        self.reads: list[tuple[int, int, int]] = []
        self.leasts_s: list[float] = []  # what ``begin`` was told, by record
        self._made = 0

    def add(
        self, *texts: str, lane: Lane = "bulk", attempts: int = 1, **changes: Any
    ) -> list[Delivery]:
        """Queues records, or with ``attempts`` above 1 leaves them for ``reclaim`` as a group."""
        deliveries = [self.delivery(text, lane, attempts, **changes) for text in texts]
        if attempts > 1:
            self.left.append(deliveries)
        else:
            self.queues[lane] += deliveries
        return deliveries

    def delivery(self, text: str, lane: Lane, attempts: int, **changes: Any) -> Delivery:
        self._made += 1
        values: dict[str, Any] = {
            "request": f"{self._made:034x}",
            "index": 0,
            "tenant": "default",
            "lane": lane,
            "source": "en",
            "target": "de",
            "text": text,
            "cost": max(1, len(text)),
            "accepted_ms": 1_000,
            "deadline_ms": 60_000,
        }
        return Delivery(f"{self._made}-0", lane, Record(**(values | changes)), attempts, 1_250)

    def _reach(self) -> None:
        if self.away:
            raise BrokerUnavailable("Redis does not answer")

    def read(self, interactive: int, bulk: int, block_ms: int) -> list[Delivery]:
        self._reach()
        self.reads.append((interactive, bulk, block_ms))
        rooms = {"interactive": interactive, "bulk": bulk}
        return [
            self.queues[lane].popleft()
            for lane in LANES
            for _ in range(min(rooms[lane], len(self.queues[lane])))
        ]

    def begin(self, deliveries: Sequence[Delivery], least_s: float = 0.0) -> list[Verdict]:
        self._reach()
        self.leasts_s += [least_s] * len(deliveries)
        return [
            "over" if d.place in self.outcomes else self.verdicts.get(d.place, "go")
            for d in deliveries
        ]

    def complete(self, completions: Sequence[Completion]) -> int:
        for completion in completions:
            place = completion.delivery.place
            assert place not in self.outcomes, "completed twice"
            self.outcomes[place] = completion.outcome
            if completion.dead:
                self.dead.append(place)
        return len(completions)

    def discard(self, deliveries: Sequence[Delivery]) -> None:
        self.discarded += [delivery.place for delivery in deliveries]

    def reclaim(self, limit: int) -> list[Delivery]:
        self._reach()
        return self.left.popleft() if self.left else []

    def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        self._reach()
        self.returned += [delivery.place for delivery in deliveries]

    def heartbeat(self, entry: WorkerEntry, batch_records: int) -> None:
        self._reach()
        self.heartbeats.append((entry, batch_records))

    def texts(self, deliveries: Iterable[Delivery]) -> list[str | None]:
        """The texts that came back for deliveries; None for an error."""
        return [self.outcomes[delivery.place].text for delivery in deliveries]

    def codes(self, deliveries: Iterable[Delivery]) -> list[str | None]:
        """The error codes that came back for deliveries; None for a text."""
        errors = [self.outcomes[delivery.place].error for delivery in deliveries]
        return [error and error.code for error in errors]


class Held:
    """The leases' methods over a dictionary."""

    def __init__(self) -> None:
        self.places: set[Place] = set()
        self.dead = False

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        self.places |= {delivery.place for delivery in deliveries}

    def release(self, deliveries: Iterable[Delivery]) -> None:
        self.places -= {delivery.place for delivery in deliveries}

    def check(self) -> None:
        if self.dead:
            raise RuntimeError("the lease thread is dead")


class Shelf:
    """The translation memory's methods over a dictionary."""

    def __init__(self) -> None:
        self.held: dict[Name, str] = {}
        self.asked: list[int] = []
        self.kept: list[int] = []

    def find(self, names: Collection[Name]) -> dict[Name, str]:
        self.asked.append(len(names))
        return {name: self.held[name] for name in names if name in self.held}

    def keep(self, translations: Mapping[Name, str]) -> None:
        self.kept.append(len(translations))
        self.held |= translations
