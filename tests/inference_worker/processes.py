"""Worker processes for tests: started, awaited by their ready line, signalled, always ended."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from broker.settings import BrokerSettings
from tests.redis_server import wait_until

ROOT = Path(__file__).parents[2]


class WorkerProcess:
    """A process and what it has logged so far."""

    def __init__(self, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(self._process.stdout)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def niceness(self) -> int:
        return os.getpriority(os.PRIO_PROCESS, self._process.pid)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> "WorkerProcess":
        wait_until(
            lambda: "dragoman-worker ready" in self.output or not self.running,
            description="the worker is ready",
            timeout_s=120.0,
        )
        assert self.running, self.output
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ended(self, timeout_s: float = 120.0) -> int:
        """The exit status."""
        status = self._process.wait(timeout_s)
        self._reader.join(60.0)
        return status

    def end(self) -> None:
        if self.running:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
            self._process.wait(60.0)
        self._reader.join(60.0)
        assert self._process.stdout is not None
        self._process.stdout.close()


def flags(settings: BrokerSettings) -> list[str]:
    return [
        *("--redis-url", settings.redis_url, "--lease-s", str(settings.lease_s)),
        *("--heartbeat-s", str(settings.heartbeat_s)),
        *("--redis-timeout-s", str(settings.redis_timeout_s)),
    ]


@contextmanager
def worker(settings: BrokerSettings, *more: str) -> Iterator[WorkerProcess]:
    """The real worker on the bundled model."""
    process = WorkerProcess(["-m", "inference_worker", *flags(settings), *more])
    try:
        yield process
    finally:
        process.end()


@contextmanager
def paced(
    settings: BrokerSettings,
    *more: str,
    fault: str = "none",
    text: str = "",
    once: Path | None = None,
    pace_s: float = 0.0,
) -> Iterator[WorkerProcess]:
    """A worker with the echo engine."""
    process = WorkerProcess(
        [
            *(
                "-m",
                "tests.inference_worker.paced_worker",
                fault,
                text,
                str(once or ""),
                str(pace_s),
            ),
            *flags(settings),
            *more,
        ]
    )
    try:
        yield process
    finally:
        process.end()
