"""How far a run is, from 0 to 1, and the learning rate that follows from it. A run is measured in
steps, or in its own running time: time in which the process was stopped (SIGSTOP, a suspended
machine, an evaluation) does not count, unless a finishing time would be missed; then the rest is
compressed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# No step takes this long; a process that sees a longer gap was paused.
PAUSE_S = 5.0


def learning_rate(peak: float, step: int, warmup_steps: int, progress: float) -> float:
    """Linear warm-up over steps times a cosine over progress that ends at 2 % of `peak`."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * min(1.0, (step + 1) / warmup_steps) * cosine


@dataclass
class StepBudget:
    """Progress by counting steps: what tests and GPU runs use, since it repeats exactly."""

    steps: int
    progress: float = 0.0

    def advance(self) -> float:
        # Counted in whole steps: adding 1 / steps would end one step late for most numbers.
        self.progress = (round(self.progress * self.steps) + 1) / self.steps
        return self.progress


@dataclass
class TimeBudget:
    """Progress by running time, with an optional wall-clock time at which it must be complete."""

    budget_s: float
    finish_at: float = math.inf
    """Seconds since the epoch."""
    progress: float = 0.0
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self._last = self.monotonic()

    def advance(self) -> float:
        """Account for the time since the last call; returns the progress, 1 or more at the end."""
        now = self.monotonic()
        took, self._last = now - self._last, now
        if took > PAUSE_S:
            took = 0.0
        left = min(self.budget_s * (1 - self.progress), self.finish_at - self.wall())
        self.progress = 1.0 if left <= took else self.progress + (1 - self.progress) * took / left
        return self.progress
