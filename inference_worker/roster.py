"""Which sentence enters the engine when: interactive ones first but not alone, and whatever may
break the engine apart from everything else. Names no tensor and no Redis."""

from collections import Counter, deque
from collections.abc import Iterable

from broker.wire import LANES, Lane
from inference_worker.draft import Draft, Unit

_INTERACTIVE_PART = 8  # one in so many slots admits interactive work only
_BULK_PART = 4  # of the rest, one in so many is bulk's even when interactive work could fill it
_AHEAD_PART = 4  # so much of the slots' number may wait outside, read but not admitted


class Roster:
    """Sentences waiting for the engine and inside it.

    ``trials`` are groups that must have the engine for themselves, in order: while there are any,
    nothing else is admitted.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._reserved = slots // _INTERACTIVE_PART  # for interactive work
        self._guaranteed = min(slots - 1, max(1, (slots - self._reserved) // _BULK_PART))  # bulk
        self._ahead = max(1, slots // _AHEAD_PART)
        self._waiting: dict[Lane, deque[Unit]] = {lane: deque() for lane in LANES}
        self._trials: deque[deque[Unit]] = deque()
        self._trying = False  # the first trial has the engine
        self._busy: Counter[Lane] = Counter()  # sentences inside, by lane
        self.inside: dict[int, Unit] = {}

    @property
    def trying(self) -> bool:
        """Whether a group is waiting to have the engine for itself, or has it."""
        return bool(self._trials)

    @property
    def waiting(self) -> int:
        """Sentences of fresh work outside the engine."""
        return sum(len(units) for units in self._waiting.values())

    def room(self, lane: Lane) -> int:
        """How many more sentences of a lane it pays to read now."""
        if self._trials:
            return 0
        load = {name: len(self._waiting[name]) + self._busy[name] for name in LANES}
        left = self._slots + self._ahead - sum(load.values())
        if lane == "interactive":
            return max(left, self._reserved - load[lane], 0)
        if len(self._waiting[lane]) > self._ahead // 2:
            return 0  # enough to go on with: fewer, larger reads
        open_slots = self._slots - self._reserved + self._ahead - load[lane]
        return max(min(left, open_slots), self._guaranteed - load[lane], 0)

    def add(self, draft: Draft) -> None:
        """Fresh work, behind what waits in its lane."""
        self._waiting[draft.delivery.record.lane].extend(draft.units)

    def try_apart(self, units: Iterable[Unit]) -> None:
        """Sentences that nothing else may share the engine with, behind earlier such groups."""
        group = deque(units)
        if group:
            self._trials.append(group)

    def admit(self, free: int) -> list[Unit]:
        """The sentences to admit now, at most ``free``; they count as inside from here on."""
        admitted = self._from_trial(free) if self._trials else self._from_lanes(free)
        self.inside.update((unit.sentence.key, unit) for unit in admitted)
        self._busy.update(unit.draft.delivery.record.lane for unit in admitted)
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

    def finish(self, key: int) -> Unit | None:
        """Takes a sentence that left the engine; None if nobody wants it any more."""
        unit = self._leave(key)
        self._end_trial()
        return unit

    def _leave(self, key: int) -> Unit | None:
        unit = self.inside.pop(key, None)
        if unit is not None:
            self._busy[unit.draft.delivery.record.lane] -= 1
        return unit

    def _end_trial(self) -> None:
        if self._trying and not self._trials[0] and not self.inside:
            self._trials.popleft()
            self._trying = False

    def drop(self, drafts: set[Draft]) -> list[int]:
        """Forgets drafts wherever they are; returns the keys that the engine must drop."""
        for lane, units in self._waiting.items():
            self._waiting[lane] = deque(unit for unit in units if unit.draft not in drafts)
        groups: deque[deque[Unit]] = deque()
        for at, group in enumerate(self._trials):
            left = deque(unit for unit in group if unit.draft not in drafts)
            if left or (at == 0 and self._trying):
                groups.append(left)
        self._trials = groups
        keys = [key for key, unit in self.inside.items() if unit.draft in drafts]
        for key in keys:
            self._leave(key)
        self._end_trial()
        return keys

    def bisect(self) -> Unit | None:
        """After a failed step, with an emptied engine: makes a trial of either half of what was
        inside, or returns the only sentence it can have been."""
        units = list(self.inside.values())
        self.inside.clear()
        self._busy.clear()
        if self._trying:
            self._trying = False
            if not self._trials[0]:
                self._trials.popleft()
        if len(units) == 1:
            return units[0]
        middle = len(units) // 2
        self._trials.extendleft([deque(units[middle:]), deque(units[:middle])])
        return None
