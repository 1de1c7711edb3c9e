"""The end of a hung engine: Python's own watchdog thread, which fires even while a call holds the
interpreter lock, prints every thread's stack and exits the process."""

import faulthandler
import time
from collections.abc import Callable
from types import TracebackType

WARM_UP_FACTOR = 4  # a step may take so many times what the slowest warm-up step took
_REARM_PART = 20  # arming costs a thread; pulses closer than this part of the limit need none


class Watchdog:
    """Armed while entered; ``pulse`` tells it that the engine moves on.

    ``listener`` hears of every pulse too: the leases must know the same.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self.listener: Callable[[], None] = lambda: None
        self._clock = clock
        self._armed_s: float | None = None

    def __enter__(self) -> None:
        self._arm()
        self.listener()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._armed_s = None
        faulthandler.cancel_dump_traceback_later()
        self.listener()

    def pulse(self) -> None:
        """The engine has done a part of its step."""
        if self._armed_s is None or self._clock() - self._armed_s < self.limit_s / _REARM_PART:
            return
        self._arm()
        self.listener()

    def allow(self, step_s: float) -> None:
        """Raises the limit for an engine whose steps take long on this machine."""
        self.limit_s = max(self.limit_s, WARM_UP_FACTOR * step_s)

    def _arm(self) -> None:
        self._armed_s = self._clock()
        faulthandler.dump_traceback_later(self.limit_s, exit=True)
