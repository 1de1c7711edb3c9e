"""Servers for measurements: processes with their children, awaited, accounted for and stopped."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

START_S = 180.0
STOP_S = 60.0
LOOK_S = 0.05
TAIL_LINES = 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """A server ended or stayed silent instead of getting ready; the message is what it said."""


def parent_and_cpu_s(process: int) -> tuple[int, float]:
    """The parent of a process and the processor seconds it has taken. Raises OSError once it has
    ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Server:
    """A process that leads a session, with what it started."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process = process
        self._output = output

    def said(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def running(self) -> bool:
        return self._process.poll() is None

    def cpu_s(self) -> dict[int, float]:
        """Processor seconds so far by process: itself and what it has started, directly or not."""
        parents: dict[int, int] = {}
        spent: dict[int, float] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile
                process = int(folder.name)
                parents[process], spent[process] = parent_and_cpu_s(process)
        ours = new = {self._process.pid}
        while new := {one for one, parent in parents.items() if parent in new}:
            ours = ours | new
        return {one: spent[one] for one in ours if one in spent}

    def stop(self, within_s: float) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def started(
    argv: Sequence[str],
    ready: str,
    *,
    environ: Mapping[str, str] | None = None,
    times: int = 1,
    within_s: float = START_S,
    cpus: Collection[int] = (),
    stop_s: float = STOP_S,
) -> Iterator[Server]:
    """A server from when it has printed ``ready`` so many times, on the processors ``cpus`` alone
    if any are named. Raises NotStarted."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
            preexec_fn=partial(os.sched_setaffinity, 0, cpus) if cpus else None,
        )
        server = Server(process, output)
        try:
            end_s = time.monotonic() + within_s
            while server.said().count(ready) < times:
                if not server.running() or time.monotonic() > end_s:
                    tail = "\n".join(server.said().splitlines()[-TAIL_LINES:])
                    raise NotStarted(f"{' '.join(argv)} did not get ready:\n{tail}")
                time.sleep(LOOK_S)
            yield server
        finally:
            server.stop(stop_s)


def stop_in_order_when_terminated() -> None:
    """Makes SIGTERM an exception, so that servers are stopped on the way out."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
