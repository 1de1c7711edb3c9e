"""Which sentence enters the engine when: interactive ones first but not alone, and whatever may
break the engine apart from everything else. Names no tensor and no Redis."""

import threading
from collections import Counter, deque
from collections.abc import Collection, Iterable
from time import perf_counter

from broker.memory import Name
from broker.wire import LANES, Lane
from inference_worker.draft import Draft, Unit

_INTERACTIVE_PART = 8  # one in so many slots admits interactive work only
_BULK_PART = 4  # of the rest, one in so many is bulk's even when interactive work could fill it
_AHEAD_PART = 4  # at least so much of the slots' number may wait outside, read but not admitted


class Roster:
    """Sentences waiting for the engine and inside it, handed from the intake thread to the decoding
    thread. Every method may be called from any thread.

    ``trials`` are groups that must have the engine for themselves, in order: while there are any,
    nothing else is admitted.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._reserved = slots // _INTERACTIVE_PART  # for interactive work
        self._guaranteed = min(slots - 1, max(1, (slots - self._reserved) // _BULK_PART))  # bulk
        # What one step can free is read ahead: a batch, or a few sentences of a continuous engine.
        self._ahead = max(1, slots // _AHEAD_PART)
        self._waiting: dict[Lane, deque[Unit]] = {lane: deque() for lane in LANES}
        self._trials: deque[deque[Unit]] = deque()
        self._trying = False  # the first trial has the engine
        self._busy: Counter[Lane] = Counter()  # sentences inside, by lane
        self._named: dict[tuple[Lane, Name], Unit] = {}  # which equal sentences of a lane may join
        self._gone: set[int] = set()  # keys that the engine holds and nobody wants
        self.inside: dict[int, Unit] = {}
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._opened = threading.Condition(self._lock)
        self.openings = 0  # times that a step left room in both lanes

    @property
    def about_to_try(self) -> bool:
        """Whether the next sentences admitted are those of a group that gets the engine."""
        with self._lock:
            return bool(self._trials) and not self._trying and not self.inside

    @property
    def waiting(self) -> int:
        """Sentences of fresh work outside the engine."""
        return sum(len(units) for units in self._waiting.values())

    @property
    def full(self) -> bool:
        """Whether there is at least as much as the engine holds."""
        return self.waiting + len(self.inside) >= self._slots

    # ── Intake ───────────────────────────────────────────────────────────────────────────────

    def room(self, lane: Lane) -> int:
        """How many more sentences of a lane it pays to read now."""
        with self._lock:
            if self._trials:
                return 0
            load = {name: len(self._waiting[name]) + self._busy[name] for name in LANES}
            if lane == "interactive":
                # Bulk work that waits gives way to it, so that it takes no room from it.
                left = self._open(self._slots, load[lane] + self._busy["bulk"])
                return max(left, self._reserved - load[lane], 0)
            left = self._open(self._slots, sum(load.values()))
            if len(self._waiting[lane]) > self._ahead // 2:
                return 0  # enough to go on with: fewer, larger reads
            own = self._open(self._slots - self._reserved, load[lane])
            return max(min(left, own), self._guaranteed - load[lane], 0)

    def _open(self, slots: int, load: int) -> int:
        """Room for so many slots' load: the slots first, and what comes after them only once they
        are taken, since another worker may be idle."""
        return slots - load + (self._ahead if load >= slots else 0)

    def enter(self, units: Iterable[Unit]) -> None:
        """Fresh work. What has the name of a sentence that is here already, in its lane, waits for
        that one's translation."""
        with self._lock:
            alone = []
            for unit in units:
                twin = unit.name and self._named.setdefault((unit.lane, unit.name), unit)
                if twin is None or twin is unit:
                    alone.append(unit)
                else:
                    self._join(twin, unit)
            self.add(alone)

    def _join(self, twin: Unit, unit: Unit) -> None:
        inside = twin.sentence.key in self.inside
        for spot in unit.spots:
            spot.draft.coalesced += 1
            if inside and spot.draft.admitted_s is None:
                spot.draft.admitted_s = perf_counter()
        twin.spots += unit.spots

    def add(self, units: Iterable[Unit]) -> None:
        """Work, behind what waits in its lane."""
        with self._lock:
            for unit in units:
                self._waiting[unit.lane].append(unit)
            self._arrived.notify()

    def try_apart(self, units: Iterable[Unit]) -> None:
        """Sentences that nothing else may share the engine with, behind earlier such groups."""
        group = deque(units)
        if group:
            with self._lock:
                self._trials.append(group)
                self._arrived.notify()

    def drop(self, drafts: Collection[Draft]) -> None:
        """Forgets drafts wherever they are; a sentence stays while another draft waits for it."""
        with self._lock:
            for lane, units in self._waiting.items():
                self._waiting[lane] = deque(unit for unit in units if _wanted(unit, drafts))
            groups: deque[deque[Unit]] = deque()
            for at, group in enumerate(self._trials):
                left = deque(unit for unit in group if _wanted(unit, drafts))
                if left or (at == 0 and self._trying):
                    groups.append(left)
            self._trials = groups
            self._named = {name: unit for name, unit in self._named.items() if unit.spots}
            for key in [k for k, unit in self.inside.items() if not _wanted(unit, drafts)]:
                self._leave(key)
                self._gone.add(key)
            self._end_trial()
            self._arrived.notify()

    def wait_for_opening(self, seen: int, timeout_s: float) -> None:
        """Returns when ``openings`` is no longer ``seen``, or when the time is over."""
        with self._opened:
            self._opened.wait_for(lambda: self.openings != seen, timeout_s)

    # ── Decoding ─────────────────────────────────────────────────────────────────────────────

    def wait_for_work(self, timeout_s: float) -> None:
        """Returns when there is something to admit or to drop, or when the time is over."""
        with self._arrived:
            self._arrived.wait_for(lambda: self.waiting or self._trials or self._gone, timeout_s)

    def gone(self) -> set[int]:
        """Keys that the engine must drop; each is told once."""
        with self._lock:
            gone, self._gone = self._gone, set()
            return gone

    def admit(self, free: int) -> list[Unit]:
        """The sentences to admit now, at most ``free``; they count as inside from here on."""
        with self._lock:
            admitted = self._from_trial(free) if self._trials else self._from_lanes(free)
            self.inside.update((unit.sentence.key, unit) for unit in admitted)
            self._busy.update(unit.lane for unit in admitted)
            if self.room("bulk") and self.room("interactive"):
                self.openings += 1
                self._opened.notify()
            return admitted

    def _from_trial(self, free: int) -> list[Unit]:
        if not self._trying:
            if self.inside:
                return []
            self._trying = True
        group = self._trials[0]
        return [group.popleft() for _ in range(min(free, len(group)))]

    def _from_lanes(self, free: int) -> list[Unit]:
        interactive, bulk = self._waiting["interactive"], self._waiting["bulk"]
        most = self._slots - (self._guaranteed if bulk else 0) - self._busy["interactive"]
        first = min(len(interactive), free, max(0, most))
        most = self._slots - self._reserved - self._busy["bulk"]
        second = min(len(bulk), free - first, max(0, most))
        return [interactive.popleft() for _ in range(first)] + [
            bulk.popleft() for _ in range(second)
        ]

    def finish(self, keys: Collection[int]) -> list[Unit | None]:
        """Takes sentences that left the engine; None for those nobody wants any more."""
        with self._lock:
            self._ahead = max(self._ahead, min(len(keys), self._slots))
            self._gone.difference_update(keys)
            units = [self._leave(key) for key in keys]
            self._end_trial()
            return units

    def _leave(self, key: int) -> Unit | None:
        unit = self.inside.pop(key, None)
        if unit is not None:
            self._busy[unit.lane] -= 1
            if unit.name and self._named.get((unit.lane, unit.name)) is unit:
                del self._named[unit.lane, unit.name]
        return unit

    def _end_trial(self) -> None:
        if self._trying and not self._trials[0] and not self.inside:
            self._trials.popleft()
            self._trying = False

    def bisect(self) -> Unit | None:
        """After a failed step, with an emptied engine: makes a trial of either half of what was
        inside, or returns the only sentence it can have been. What was dropped during the step was
        inside too: who is left may be innocent."""
        with self._lock:
            units, alone = list(self.inside.values()), not self._gone
            self.inside.clear()
            self._busy.clear()
            self._named.clear()  # nothing joins what may be guilty
            self._gone.clear()
            if self._trying:
                self._trying = False
                if not self._trials[0]:
                    self._trials.popleft()
            if alone and len(units) == 1:
                return units[0]
            middle = len(units) // 2
            halves = [deque(units[middle:]), deque(units[:middle])]
            self._trials.extendleft(half for half in halves if half)
            return None


def _wanted(unit: Unit, dropped: Collection[Draft]) -> bool:
    """Whether a draft still waits for a sentence; those that are dropped no longer do."""
    unit.spots[:] = [spot for spot in unit.spots if spot.draft not in dropped]
    return bool(unit.spots)
