"""What a worker measures of itself: characters a second while busy, sentences to a record."""

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
        self._average: float | None = None
        self._busy_s = self._measured_s = 0.0
        self._chars = self._measured_chars = 0

    def prepared(self, sentences: int) -> None:
        """A record turned out to have so many sentences."""
        step = max(1, sentences) - self.sentences_per_record
        self.sentences_per_record += _RECORD_WEIGHT * step

    def busy(self, seconds: float) -> None:
        """The engine worked for so long."""
        self._busy_s += seconds

    def completed(self, chars: int) -> None:
        """A record of so many characters is done."""
        self.records += 1
        self._chars += chars

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
