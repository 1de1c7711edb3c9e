"""Tests of the overload benchmark: what its report makes of what was seen."""

import itertools
import sys
import time

import pytest

from benchmarks import load, overload
from benchmarks.load import Answer
from benchmarks.overload import Run, Sample, recovered
from benchmarks.servers import started
from benchmarks.stacks import Stack, paced
from broker.settings import BrokerSettings


def seen() -> Run:
    """20 s at 10 a second, of which two are answered in time; calm before and after."""
    run = Run(capacity=2.0)
    run.before = [Answer(0.5, ended_s=n + 0.5) for n in range(5)]
    for n in range(200):
        due_s = n / 10
        run.during.append(
            Answer(4.0, ended_s=due_s + 4.0)
            if n % 5 == 0
            else Answer(0.01, "too_late", ended_s=due_s + 0.01)
        )
    run.during[50] = Answer(6.0, ended_s=11.0)
    run.after = [Answer(late := 3.0 if n < 2 else 0.6, ended_s=n + late) for n in range(10)]
    run.processors = {
        "capacity": {"api": 0.25, "client": 0.1},
        "overload": {"api": 0.5, "client": 0.3},
    }
    run.samples = [Sample(float(n), 100 * n, 1 << 20, {"api": 2 << 20}) for n in range(31)]
    return run


def test_the_report_tells_goodput_refusals_and_what_was_kept() -> None:
    options = overload.parsed(["--seconds", "20"])
    text = overload.told(seen(), paced(0.5, 8), options, "a machine")
    assert "| answered in time" in text
    assert "1.9 /s, 97% of capacity" in text  # from 5 s on, without the late one
    assert "39 of 40 (97.50%)" in text
    assert "| refused" in text
    assert "80.0%" in text
    assert "| too_late |      160 | 80.0% | 0.010 |" in text
    assert "api RSS MiB" in text
    assert "| overload          | 0.50 |   0.30 |" in text


def test_what_is_used_of_the_processors_is_measured_by_server() -> None:
    code = "print('spinning', flush=True)\nwhile True: pass"
    with started([sys.executable, "-c", code], "spinning") as spinning:
        use = overload.Use(Stack("", BrokerSettings(), spinning, None, []))
        end_s = time.process_time() + 0.2
        while time.process_time() < end_s or not spinning.cpu_s():
            sum(range(1_000))
        used = use.processors()
    assert list(used) == ["valkey", "client"]
    assert min(used.values()) > 0.0


def test_recovery_counts_from_the_end_to_the_last_slow_answer() -> None:
    run = seen()
    assert recovered(run) == "1.0 s after the end"
    run.after.append(Answer(0.01, "too_late", ended_s=20.0))
    assert recovered(run) == "not within 20 s after the end"


def test_requests_differ_and_only_a_text_is_an_answer() -> None:
    one, other = itertools.islice(overload.requests(5.0), 2)
    assert b"X-Deadline-Ms: 5000\r\n" in one.raw != other.raw
    assert one.reject(200, b'{"result":[{"id":"0","text":"Ja."}]}') == ""
    assert one.reject(200, b'{"result":[{"id":"0","error":{}}]}') == "a record without text"
    assert one.reject(503, b'{"code":"too_late"}') == "too_late"
    assert one.reject(502, b"{}") == "status 502"


async def test_a_service_that_translates_nothing_has_no_capacity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refusing(*_: object) -> list[Answer]:
        return [Answer(0.1, "too_late", ended_s=7.0)] * 3

    monkeypatch.setattr(load, "closed_loop", refusing)
    with pytest.raises(overload.NotStarted, match="nothing was translated"):
        await overload.capacity(("127.0.0.1", 1), 3, 5.0)


@pytest.mark.parametrize(
    "flags", [["--seconds", "5"], ["--deadline-s", "31"], ["--workers", "0"], ["--batch-s", "0"]]
)
def test_flags_that_do_not_fit_are_refused(flags: list[str]) -> None:
    with pytest.raises(SystemExit):
        overload.parsed(flags)
