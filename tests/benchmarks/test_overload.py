"""Tests of the overload benchmark: what its report makes of what was seen."""

import os
import time

import pytest

from benchmarks import overload
from benchmarks.fleet import Engine, Fleet
from benchmarks.overload import Answer, Run, Sample, arrivals, recovered_s
from broker.settings import BrokerSettings


def seen() -> Run:
    """20 s at 10 a second, of which two are answered in time; calm before and after."""
    run = Run(capacity=2.0, began_s=100.0, ended_s=120.0)
    run.before = [Answer(90.0 + n, 0.5, "text") for n in range(5)]
    for n in range(200):
        due_s = 100.0 + n / 10
        run.during.append(
            Answer(due_s, 4.0, "text") if n % 5 == 0 else Answer(due_s, 0.01, "too_late")
        )
    run.during[50] = Answer(105.0, 6.0, "text")
    run.after = [Answer(120.0 + n, 3.0 if n < 2 else 0.6, "text") for n in range(10)]
    run.processors = {
        "capacity": {"api": 0.25, "client": 0.1},
        "overload": {"api": 0.5, "client": 0.3},
    }
    run.samples = [Sample(float(n), 100 * n, 1 << 20, {"api": 2 << 20}) for n in range(31)]
    return run


def test_the_report_tells_goodput_refusals_and_what_was_kept() -> None:
    options = overload.parsed(["--seconds", "20"])
    text = overload.told(seen(), Engine(0.5, 8), options, "a machine")
    assert "| answered in time" in text
    assert "1.9 /s, 97% of capacity" in text  # from 5 s on, without the late one
    assert "39 of 40 (97.50%)" in text
    assert "| refused" in text
    assert "80.0%" in text
    assert "| too_late |      160 | 80.0% | 0.010 |" in text
    assert "api RSS MiB" in text
    assert "| overload          | 0.50 |   0.30 |" in text


def test_what_is_used_of_the_processors_is_measured_by_process() -> None:
    service = Fleet(BrokerSettings(), "", {"own": [os.getpid()], "ended": []})
    use = overload.Use(service)
    end_s = time.process_time() + 0.2
    while time.process_time() < end_s:
        sum(range(1_000))
    used = use.processors()
    assert list(used) == ["own", "ended", "client"]
    assert used["own"] > 0.0 < used["client"]
    assert used["ended"] == 0.0


def test_recovery_counts_from_the_end_to_the_last_slow_answer() -> None:
    assert recovered_s(seen()) == 1.0


def test_arrivals_are_independent_and_the_same_for_the_same_figures() -> None:
    due_s = list(arrivals(100.0, 50.0))
    assert due_s == list(arrivals(100.0, 50.0)) == sorted(due_s)
    assert 4_500 < len(due_s) < 5_500


@pytest.mark.parametrize(
    "flags", [["--seconds", "5"], ["--deadline-s", "31"], ["--workers", "0"], ["--batch-s", "0"]]
)
def test_flags_that_do_not_fit_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit):
        overload.parsed(flags)
