"""Waiting for work while the caller may go away and the process may be asked to stop.

Most waits are short and end with the work, so that one costs no task: the watch is awaited by the
request's own, whoever ends it early interrupts the watch, and the connection is only looked at once
a wait has lasted for a while.
"""

import asyncio
from collections.abc import Callable, Coroutine
from enum import Enum

from starlette.types import Receive

from api.service import Bell
from broker.waiter import Watch

UNWATCHED_S = 0.25  # a caller who leaves sooner is noticed then


class Ending(Enum):
    """How a wait ended."""

    CAME = "what was waited for came"
    TIMED_OUT = "it did not come in time"
    LEFT = "the caller disconnected"
    STOPPING = "the process is about to stop"


async def wait(
    watch: Watch, coming: Coroutine[None, None, bool], bell: Bell, receive: Receive | None = None
) -> Ending:
    """Awaits ``coming``, one of the coroutines of ``watch``, which answers False on its own
    time-out.

    ``receive`` is the request's, its body already read; without it nobody looks at the connection.
    """
    early: Ending | None = None

    def interrupt(reason: Ending) -> None:
        nonlocal early
        early = early or reason
        watch.interrupt()

    def stop() -> None:
        interrupt(Ending.STOPPING)

    look = _Look(receive, lambda: interrupt(Ending.LEFT)) if receive else None
    bell.listeners.add(stop)
    try:
        if bell.rung:
            stop()
        if await coming:
            return Ending.CAME
        return early or Ending.TIMED_OUT
    finally:
        bell.listeners.discard(stop)
        if look:
            look.end()


class _Look:
    """Looks at a connection from ``UNWATCHED_S`` after now on, until ``end``."""

    def __init__(self, receive: Receive, left: Callable[[], None]) -> None:
        self._receive = receive
        self._left = left
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(UNWATCHED_S, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._disconnected())

    async def _disconnected(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._left()

    def end(self) -> None:
        self._timer.cancel()
        if self._task:
            self._task.cancel()
