"""What a worker measures of itself: characters a second while busy, how busy, sentences to a
record, how long a record takes."""

from collections import Counter
from time import perf_counter

from broker.warnings import code
from broker.wire import LANES, Details, Lane
from inference_worker.passage import Passage

_WEIGHT = 0.3  # of the newest heartbeat's rate in the moving average
_RECORD_WEIGHT = 0.02  # of the newest record's number of sentences
_SHORTEST_S = 0.05  # of work; less says nothing about the rate


class Rate:
    """Moving averages over a worker's own completions.

    Three threads count here, each with a method and totals of its own, which only grow.
    """

    def __init__(self) -> None:
        self.records = 0  # completed since the start
        self.sentences_per_record = 1.0
        # Of those records: their sentences, and the records with a warning, by its code.
        self.sentences = self.cached = self.coalesced = 0
        self.warnings: Counter[str] = Counter()
        # To its written result, by lane: from when it was begun, and from when the engine had it.
        self.from_begin: dict[Lane, Passage] = {lane: Passage() for lane in LANES}
        self.from_engine: dict[Lane, Passage] = {lane: Passage() for lane in LANES}
        self._average: float | None = None
        self._busy_s = self._measured_s = 0.0
        self._chars = self._measured_chars = 0
        self._began_s: float | None = None  # of the step that runs
        self._shared_s, self._asked_s = 0.0, perf_counter()

    def prepared(self, sentences: int) -> None:
        """A record turned out to have so many sentences."""
        step = max(1, sentences) - self.sentences_per_record
        self.sentences_per_record += _RECORD_WEIGHT * step

    def began(self, now_s: float) -> None:
        """The engine begins a step; times are those of ``perf_counter``."""
        self._began_s = now_s

    def ended(self, now_s: float) -> None:
        """The step has ended."""
        if self._began_s is not None:
            self._busy_s += now_s - self._began_s
        self._began_s = None

    def busy(self, now_s: float) -> float:
        """The share of the time since the last call that the engine worked, from 0 to 1."""
        began_s = self._began_s
        busy_s = self._busy_s + (0.0 if began_s is None else now_s - began_s)
        passed_s, new_s = now_s - self._asked_s, busy_s - self._shared_s
        self._asked_s, self._shared_s = now_s, busy_s
        return min(1.0, max(0.0, new_s / passed_s)) if passed_s > 0 else 0.0

    def completed(self, chars: int, details: Details) -> None:
        """A record of so many characters is done."""
        self.records += 1
        self._chars += chars
        self.sentences += details.sentences
        self.cached += details.cached
        self.coalesced += details.coalesced
        self.warnings.update(code(warning) for warning in details.warnings)

    def measure(self) -> float:
        """Characters a second of engine time, averaged over the calls of this method."""
        chars, busy_s = self._chars, self._busy_s
        new_chars, new_s = chars - self._measured_chars, busy_s - self._measured_s
        if new_chars and new_s >= _SHORTEST_S:
            newest = new_chars / new_s
            if self._average is None:
                self._average = newest
            self._average += _WEIGHT * (newest - self._average)
            self._measured_chars, self._measured_s = chars, busy_s
        return self._average or 0.0
