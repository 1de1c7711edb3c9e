"""Servers: what they take is accounted for, whoever of their processes took it, and they end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.servers import NotStarted, started
from tests.redis_server import wait_until

SPIN = "import time\nwhile time.process_time() < 0.3: pass\n"


def test_processor_time_of_children_that_have_ended_counts() -> None:
    code = (
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {SPIN!r}])\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    with started([sys.executable, "-c", code], "ready") as server:
        assert len(server.processes()) == 1
        assert server.cpu_s() >= 0.2  # what is less than a tick of a process is not counted
        assert server.resident_bytes() > 1 << 20


def test_what_has_outlived_its_parent_counts_and_ends_with_the_server() -> None:
    orphan = "import time\nprint('ready', flush=True)\ntime.sleep(600)"
    parent = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {orphan!r}])"
    code = (
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {parent!r}])\n"
        "time.sleep(600)"
    )
    with started([sys.executable, "-c", code], "ready") as server:
        wait_until(lambda: len(server.processes()) == 2, description="the orphan alone is left")
        both = list(server.processes())
    wait_until(
        lambda: not any(Path(f"/proc/{one}").exists() for one in both),
        description="both have ended",
    )


def test_what_does_not_stop_is_killed_and_hides_no_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    with (
        pytest.raises(NotStarted, match="an answer was wrong"),
        started([sys.executable, "-c", code], "ready", stop_s=0.1) as server,
    ):
        raise NotStarted("an answer was wrong")
    assert not server.running()
    assert "killed after 0.1 s" in capsys.readouterr().err


def test_what_does_not_get_ready_is_told_with_its_last_words() -> None:
    with (
        pytest.raises(NotStarted, match="no such model"),
        started([sys.executable, "-c", "raise SystemExit('no such model')"], "ready"),
    ):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_benchmark_that_is_told_to_end_stops_its_servers(number: signal.Signals) -> None:
    code = (
        "import sys, time\nfrom benchmarks.servers import started, stop_in_order_when_terminated\n"
        "stop_in_order_when_terminated()\n"
        "child = [sys.executable, '-c', \"print('ready', flush=True)\\nimport time\\n"
        'time.sleep(600)"]\n'
        "with started(child, 'ready') as server:\n"
        "    print(*server.processes(), flush=True)\n    time.sleep(600)\n"
    )
    root = str(Path(__file__).parents[2])
    argv, environ = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout
        (server,) = benchmark.stdout.readline().split()
        benchmark.send_signal(number)
        assert benchmark.wait(60) == 128 + number
    assert not Path(f"/proc/{server}").exists()
