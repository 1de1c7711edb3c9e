"""Servers for measurements: processes with their children, awaited, accounted for and stopped."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

START_S = 180.0
STOP_S = 60.0
LOOK_S = 0.05
TAIL_LINES = 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
HOST = "127.0.0.1"


class NotStarted(Exception):
    """A server ended or stayed silent instead of getting ready; the message is what it said."""


@dataclass(frozen=True)
class Taken:
    """What a process takes. ``cpu_s`` is that of all its threads, and of its children that have
    ended: what was theirs before is then its own."""

    parent: int
    session: int
    cpu_s: float
    resident_bytes: int


def taken(process: int) -> Taken:
    """Raises OSError once it has ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return Taken(
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_s=sum(map(int, fields[11:15])) / TICKS_PER_S,
        resident_bytes=int(fields[21]) * PAGE_BYTES,
    )


class Server:
    """A process that leads a session, with what it started."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self._process = process
        self._output = output

    def said(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode("utf-8", "replace")

    def running(self) -> bool:
        return self._process.poll() is None

    def processes(self) -> dict[int, Taken]:
        """What it takes so far, by process: itself, what it has started, directly or not, and what
        of that has outlived its parent."""
        found: dict[int, Taken] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile
                found[int(folder.name)] = taken(int(folder.name))
        ours = {one for one, its in found.items() if its.session == self._process.pid}
        new = ours
        while new := {one for one, its in found.items() if its.parent in new} - ours:
            ours = ours | new
        return {one: found[one] for one in ours}

    def cpu_s(self) -> float:
        """Processor seconds so far, of everything together."""
        return sum(one.cpu_s for one in self.processes().values())

    def resident_bytes(self) -> int:
        """Memory of everything together; pages that processes share count for each."""
        return sum(one.resident_bytes for one in self.processes().values())

    def stop(self, within_s: float) -> None:
        """In order, or by force if that takes longer: some do not stop while requests wait that
        nobody wants any more."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            print(f"killed after {within_s:g} s: {self._process.args}", file=sys.stderr)
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
    """Makes SIGTERM, and a closed terminal, an exception: servers are stopped on the way out."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, leave)
