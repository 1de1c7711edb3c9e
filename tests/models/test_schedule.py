from __future__ import annotations

import pytest

from models.training.schedule import StepBudget, TimeBudget, learning_rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_warms_up_and_falls_to_two_percent() -> None:
    assert learning_rate(1.0, step=0, warmup_steps=10, progress=0.0) == pytest.approx(0.1)
    assert learning_rate(1.0, step=9, warmup_steps=10, progress=0.0) == pytest.approx(1.0)
    assert learning_rate(1.0, step=99, warmup_steps=10, progress=1.0) == pytest.approx(0.02)


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 49])
def test_a_step_budget_ends_after_exactly_its_steps(steps: int) -> None:
    budget = StepBudget(steps)
    taken = 0
    while budget.progress < 1:
        budget.advance()
        taken += 1
    assert taken == steps


def test_a_pause_does_not_count() -> None:
    clock = Clock()
    budget = TimeBudget(100, monotonic=clock, wall=clock)
    for gap in (1.0, 600.0, 1.0):
        clock.now += gap
        budget.advance()
    assert budget.progress == pytest.approx(0.02)


def test_a_pause_compresses_a_run_that_must_finish_in_time() -> None:
    clock = Clock()
    budget = TimeBudget(100, finish_at=clock.now + 120, monotonic=clock, wall=clock)
    clock.now += 70
    steps = 0
    while budget.progress < 1:
        clock.now += 1
        budget.advance()
        steps += 1
    assert steps == pytest.approx(50, abs=1)
