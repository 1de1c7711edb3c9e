"""Several API processes on one port: starts them, replaces those that die, stops them together.

Each process listens on a socket of its own with SO_REUSEPORT, so that the kernel spreads the
connections evenly. On one shared socket, as uvicorn's own supervisor has it, whichever process woke
first took them all (40 of 40 connections that came at once, measured).
"""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from uvicorn.config import STARTUP_FAILURE

log = logging.getLogger("dragoman.api")

STEADY_S = 10.0  # a process that lived this long is replaced at once
SHORTEST_DELAY_S = 0.5
LONGEST_DELAY_S = 10.0
KILL_MARGIN_S = 5.0  # after the grace


class Supervisor:
    """Keeps ``count`` processes running ``target(*arguments)`` until SIGTERM or SIGINT."""

    def __init__(
        self, count: int, target: Callable[..., None], arguments: tuple[Any, ...], grace_s: float
    ) -> None:
        self._count = count
        self._target = target
        self._arguments = arguments
        self._grace_s = grace_s
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[SpawnProcess, float] = {}  # with the time of their start
        self._delay_s = 0.0
        self._next_start = 0.0
        self._stopping = False
        self._failed = False
        self._waking, self._wake = os.pipe()

    def run(self) -> int:
        """The exit status: not 0 if a process could not start at all."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        while not self._stopping:
            self._turn(time.monotonic())
        self._stop()
        os.close(self._waking)
        os.close(self._wake)
        return STARTUP_FAILURE if self._failed else 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stopping:  # the second time: without further delay
            for process in self._processes:
                process.terminate()
        self._stopping = True
        os.write(self._wake, b"!")

    def _turn(self, now: float) -> None:
        """Starts what is missing and due, then waits until a process ends or a signal comes."""
        while len(self._processes) < self._count and now >= self._next_start:
            process = self._context.Process(target=self._target, args=self._arguments)
            process.start()
            self._processes[process] = now
        missing = len(self._processes) < self._count
        timeout_s = max(0.0, self._next_start - now) if missing else None
        wait([self._waking, *(process.sentinel for process in self._processes)], timeout_s)
        for process in [process for process in self._processes if process.exitcode is not None]:
            self._bury(process, time.monotonic())

    def _bury(self, process: SpawnProcess, now: float) -> None:
        lived_s = now - self._processes.pop(process)
        if self._stopping:
            return
        if process.exitcode == STARTUP_FAILURE:
            self._stopping = self._failed = True
            return
        log.error("API process %s ended with status %s", process.pid, process.exitcode)
        longer_s = min(max(self._delay_s * 2, SHORTEST_DELAY_S), LONGEST_DELAY_S)
        self._delay_s = 0.0 if lived_s >= STEADY_S else longer_s
        self._next_start = now + self._delay_s

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + self._grace_s + KILL_MARGIN_S
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
