"""How long records take at present from one point of a worker to another, so that what stands at
the first can tell whether it may still reach the second in time."""

import threading
from collections import deque

NEWEST = 64  # records that count
FRESH_S = 5.0  # how long: load comes and goes
FEWEST = 8  # fewer say nothing
_FAST_PART = 4  # one in so many was faster than what is said to be fast


class Passage:
    """Times of the newest records. ``note`` and ``fast_s`` may be called from different threads."""

    def __init__(self) -> None:
        self._times: deque[tuple[float, float]] = deque(maxlen=NEWEST)  # when noted, seconds taken
        self._lock = threading.Lock()

    def note(self, now_s: float, seconds: float) -> None:
        """A record has come through in so many seconds."""
        with self._lock:
            self._times.append((now_s, seconds))

    def fast_s(self, now_s: float) -> float:
        """The lower quartile: three in four take longer. 0 while too little is known."""
        with self._lock:
            times = sorted(taken_s for noted_s, taken_s in self._times if now_s - noted_s < FRESH_S)
        return times[len(times) // _FAST_PART] if len(times) >= FEWEST else 0.0
