"""Tests of ``inference_worker.hang``; that it really ends a process is in ``test_process``."""

import faulthandler
from typing import Any

import pytest

from inference_worker.hang import Watchdog


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The limits armed so far; None for each disarming."""
    calls: list[float | None] = []

    def arm(limit_s: float, **options: Any) -> None:
        assert options == {"exit": True}
        calls.append(limit_s)

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: calls.append(None))
    return calls


def test_it_is_armed_while_a_step_runs(armed: list[float | None]) -> None:
    watchdog = Watchdog(120.0)
    with watchdog:
        assert armed == [120.0]
    assert armed == [120.0, None]
    with pytest.raises(KeyError), watchdog:
        raise KeyError
    assert armed[-1] is None


def test_pulses_arm_it_anew_and_tell_the_listener(armed: list[float | None]) -> None:
    now_s = 0.0
    heard: list[float] = []
    watchdog = Watchdog(100.0, clock=lambda: now_s)
    watchdog.listener = lambda: heard.append(now_s)
    watchdog.pulse()
    assert armed == []
    with watchdog:
        watchdog.pulse()
        assert armed == [100.0]
        now_s = 6.0
        watchdog.pulse()
        assert armed == [100.0, 100.0]
    assert heard == [0.0, 6.0, 6.0]


def test_slow_engines_get_four_times_their_warm_up(armed: list[float | None]) -> None:
    watchdog = Watchdog(120.0)
    watchdog.allow(1.0)
    assert watchdog.limit_s == 120.0
    watchdog.allow(50.0)
    assert watchdog.limit_s == 200.0
