"""One child process: started so that it cannot outlive us, read while it runs, and ended."""

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

TAIL_LINES = 60
_PR_SET_PDEATHSIG = 1
_READ_BYTES = 65_536


@dataclass(frozen=True)
class Command:
    """What to start, and how to tell from its output that it is ready."""

    name: str  # as people are shown it, e.g. "worker-1"
    argv: Sequence[str]
    ready_line: str  # what it prints when it is ready, or the part of it that never changes
    stop_within_s: float  # between SIGTERM and SIGKILL
    ready_count: int = 1  # how many of its own processes say so
    environ: Mapping[str, str] = field(default_factory=dict)  # on top of our own
    keep_open: Sequence[int] = ()  # file descriptors it inherits
    death_signal: signal.Signals = signal.SIGKILL  # what it gets when we die


class Running(Protocol):
    """A started process as the supervisor sees it."""

    @property
    def pid(self) -> int: ...

    def lines(self) -> list[str]:
        """What it printed since the last call."""

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""

    def send(self, number: signal.Signals) -> None:
        """Signals it and its own children."""

    def fileno(self) -> int:
        """Readable when there is something to do; -1 when there never will be again."""


def _die_with_parent(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """What the child runs between fork and exec: Linux then kills it when our process is gone."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # gone before the request was made
            os._exit(1)

    return ask_kernel


class Process:
    """A child in a session of its own: Ctrl-C on the terminal reaches us alone, and we decide the
    order in which things stop."""

    def __init__(self, command: Command) -> None:
        self._popen = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.environ},
            pass_fds=command.keep_open,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid(), command.death_signal),
        )
        assert self._popen.stdout is not None  # PIPE above
        self._output = self._popen.stdout
        os.set_blocking(self._output.fileno(), False)
        self._partial = b""

    @property
    def pid(self) -> int:
        return self._popen.pid

    def fileno(self) -> int:
        return -1 if self._output.closed else self._output.fileno()

    def lines(self) -> list[str]:
        while not self._output.closed:
            try:
                piece = os.read(self._output.fileno(), _READ_BYTES)
            except BlockingIOError:
                break
            if not piece:
                self._output.close()
            self._partial += piece
        *whole, self._partial = self._partial.split(b"\n")
        if self._output.closed and self._partial:
            whole.append(self._partial)
            self._partial = b""
        return [line.decode("utf-8", "replace").rstrip() for line in whole]

    def exit_code(self) -> int | None:
        return self._popen.poll()

    def send(self, number: signal.Signals) -> None:
        """To the leader for a polite request; SIGKILL to its whole group, so that nothing stays."""
        if number is not signal.SIGKILL:
            self._popen.send_signal(number)
            return
        try:
            os.killpg(self._popen.pid, number)
        except ProcessLookupError:
            return


class Tail:
    """The last lines a process printed, to be shown when it dies."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)

    def add(self, line: str) -> None:
        self._lines.append(line)

    def clear(self) -> None:
        self._lines.clear()

    def last(self) -> str:
        return self._lines[-1] if self._lines else ""

    def error(self) -> str:
        """The readable part: a traceback's last line, else what was said last."""
        lines = [line for line in self._lines if line.strip()]
        for start, line in enumerate(lines):
            if line.startswith("Traceback (most recent call last)"):
                return "\n".join(lines[max(0, start - 2) :])
        return "\n".join(lines[-12:])


def exit_reason(code: int) -> str:
    """An exit code as a person would say it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
