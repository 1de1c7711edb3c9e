"""The threads of a worker process: one takes work in, one hands results out, and the caller's own,
which is the main thread, decodes."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from inference_worker.worker import Worker

log = logging.getLogger(__name__)

IDLE_S = 1.0  # longest wait for work, so that every stage shows that it is alive
DRAIN_S = 0.02  # the same while draining: there is little left to wait for
STOP_S = 5.0  # for a stage to come to its end; a blocking read takes one second of it


class Pulse(Protocol):
    """What the threads need of ``broker.leases.Leases``."""

    def progress(self, stage: str = "") -> None: ...


class Stages:
    """Runs a worker's first and last stage while entered; ``decode`` is one turn of the middle.

    A stage that raises ends the worker: ``decode`` and leaving raise the same.
    """

    def __init__(self, worker: Worker, leases: Pulse) -> None:
        self._worker = worker
        self._leases = leases
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._intake = self._thread("intake", self._take_in)
        self._outtake = self._thread("outtake", self._hand_out)

    def _thread(self, name: str, run: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run()
            except BaseException as error:
                log.error("the %s thread ended: %s", name, type(error).__name__)
                self._error = self._error or error

        return threading.Thread(target=guarded, name=name, daemon=True)

    def __enter__(self) -> "Stages":
        self._intake.start()
        self._outtake.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._intake.join(STOP_S)
        self._worker.outtake.close()
        self._outtake.join(STOP_S)
        if error is None:
            self._check()

    def decode(self) -> None:
        """Admits and steps, or waits for work."""
        self._check()
        self._leases.progress("decoding")
        self._worker.decoding.turn(DRAIN_S if self._worker.intake.draining else IDLE_S)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _take_in(self) -> None:
        roster = self._worker.roster
        while not self._stopping.is_set():
            self._leases.progress("intake")
            seen = roster.openings
            pause_s = self._worker.intake.turn(time.monotonic())
            if pause_s > 0:
                roster.wait_for_opening(seen, pause_s)

    def _hand_out(self) -> None:
        going_on = True
        while going_on:
            self._leases.progress("outtake")
            going_on = self._worker.outtake.turn(IDLE_S)
