"""The real thing: ``dragoman up`` and ``dragoman demo`` with the bundled model."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman import Client, Retries
from tests.redis_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

START_S = 240.0  # two cores, shared with other tests
ENVIRONMENT = {
    "DRAGOMAN_LEASE_S": "4",  # what a killed worker held moves on soon
    "DRAGOMAN_HEARTBEAT_S": "1",
    "DRAGOMAN_REDIS_TIMEOUT_S": "20",
    "DRAGOMAN_THREADS": "1",
    "DRAGOMAN_BEAMS": "1",
}
Wait = Callable[..., Any]


def status(pid: int) -> list[str]:
    """State and parent of a process, empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return []


def descendants(pid: int) -> set[int]:
    """Everything a process has started, directly or not."""
    parents = {int(one.name): status(int(one.name)) for one in Path("/proc").glob("[0-9]*")}
    found, new = set[int](), {pid}
    while new:
        new = {one for one, state in parents.items() if state and int(state[1]) in new}
        found |= new
    return found


def gone(pids: set[int]) -> bool:
    return not [pid for pid in pids if status(pid) and status(pid)[0] != "Z"]


class Up:
    """A running ``dragoman`` and what it prints."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environ = {name: value for name, value in os.environ.items() if "DRAGOMAN" not in name}
        self.output, self.complaints = folder / "output", folder / "complaints"
        with self.output.open("w") as output, self.complaints.open("w") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dragoman", *arguments],
                stdout=output,
                stderr=complaints,
                env=environ | ENVIRONMENT,
            )

    def printed(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def complained(self) -> str:
        return self.complaints.read_text(encoding="utf-8")

    def running(self, name: str) -> set[int]:
        """Processes below this one whose command line names ``name``."""
        return {pid for pid in descendants(self.process.pid) if name in command_line(pid)}

    def ready(self) -> bool:
        assert self.process.poll() is None, self.complained()
        return "Dragoman is ready on" in self.printed()


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@contextmanager
def up(folder: Path, wait_until: Wait, *arguments: str) -> Iterator[tuple[Up, Client]]:
    """``dragoman up`` once it is ready, and a client of it. Whatever happens, it is gone later."""
    port = free_port()
    stack = Up(folder, "up", "--port", str(port), *arguments)
    try:
        wait_until(stack.ready, description="the stack is ready", timeout_s=START_S)
        patient = Retries(200, 200, first_delay_s=0.1, longest_delay_s=0.5)
        with Client(f"http://127.0.0.1:{port}", retries=patient) as client:
            yield stack, client
    finally:
        stack.process.kill()
        stack.process.wait()


def operated(stack: Up, *arguments: str) -> str:
    """What an operator's command prints with the Redis that the stack said it has."""
    (line,) = (one for one in stack.complained().splitlines() if "DRAGOMAN_REDIS_URL=" in one)
    variable, _, url = line.rpartition(" ")[2].partition("=")
    command = [sys.executable, "-m", "dragoman", *arguments]
    return subprocess.check_output(command, text=True, env={**os.environ, variable: url})


def kill_one(stack: Up, name: str, wait_until: Wait) -> None:
    """kill -9, and wait until another one is there and ready."""
    victims = stack.running(name)
    os.kill(min(victims), signal.SIGKILL)
    wait_until(
        lambda: gone({min(victims)}) and len(stack.running(name)) == len(victims),
        description=f"another {name} runs",
    )


def written(data: Path, job_id: str) -> bool:
    """Whether the append-only file tells that a job is done."""
    done = f"{job_id}\r\n$5\r\nstate\r\n$4\r\ndone".encode()
    return any(done in file.read_bytes() for file in data.rglob("*.aof"))


def test_a_life_with_deaths(tmp_path: Path, wait_until: Wait) -> None:
    """Translates; outlives the death of each of its processes; stops in order; keeps its data."""
    options = ["--api-processes", "2", "--data-dir", str(tmp_path / "data")]
    with up(tmp_path, wait_until, *options) as (stack, client):
        assert "curl -X POST http://127.0.0.1" in stack.printed()
        assert client.translate("Where is the station?", "en", "ja").strip()
        assert {"en", "ja"} <= client.languages().keys()
        assert operated(stack, "dead-letters", "list") == "There are no dead letters.\n"
        job = client.submit(["Good morning."] * 40, "en", "ja")

        kill_one(stack, "dragoman-worker", wait_until)
        assert all(result.text for result in job.wait(120))
        assert "worker-1 was ended by SIGKILL; it is started again" in stack.complained()

        # While the disk is slow, Redis answers before it writes.
        wait_until(lambda: written(tmp_path / "data", job.id), description="the job is kept")
        kill_one(stack, "valkey-server", wait_until)
        assert client.translate("The answer is no.", "en", "ja").strip()

        everything = descendants(stack.process.pid)
        assert len(everything) >= 6  # Redis, two kinds of worker, the API and its two processes
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(120) == 0
        assert gone(everything)
        assert "Traceback" not in stack.complained()

    with up(tmp_path, wait_until, *options) as (stack, client):
        assert len(client.job(job.id).wait(60)) == 40
        everything = descendants(stack.process.pid)
        stack.process.kill()  # nobody left to stop the others
        wait_until(lambda: gone(everything), description="nothing is left")


def test_demo(tmp_path: Path) -> None:
    demo = Up(tmp_path, "demo", "--device", "cpu")
    assert demo.process.wait(START_S) == 0, demo.complained()
    assert "DRAGOMAN_REDIS_URL" not in demo.complained()  # it is gone in a moment
    assert "Life is like a box of chocolates.\n  " in demo.printed()
    japanese = [line for line in demo.printed().splitlines() if line.startswith("  ")]
    assert len(japanese) == 7
    assert all(any(ord(letter) > 0x3000 for letter in line) for line in japanese)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    port = str(free_port())
    stack = Up(tmp_path, "up", "--port", port, "--model", str(tmp_path / "absent"))
    assert stack.process.wait(START_S) == 1
    assert "dragoman: worker-1 ended with exit code 1." in stack.complained()
    assert "absent" in stack.complained()
    assert "Traceback" not in stack.complained()
    assert stack.printed() == ""


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    port = str(free_port())
    stack = Up(tmp_path, "up", "--port", port, "--redis-url", "redis://127.0.0.1:9/0")
    assert stack.process.wait(START_S) == 1
    assert "\ndragoman: redis: Redis does not answer" in stack.complained()
