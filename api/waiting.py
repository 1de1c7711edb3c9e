"""Waiting for work while the caller may go away and the process may be asked to stop."""

import asyncio
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from starlette.types import Receive

from api.service import Bell


class Ending(Enum):
    """How a wait ended."""

    CAME = "what was waited for came"
    TIMED_OUT = "it did not come in time"
    LEFT = "the caller disconnected"
    STOPPING = "the process is about to stop"


async def wait(
    awaited: Coroutine[None, None, bool], bell: Bell, receive: Receive | None = None
) -> Ending:
    """Awaits a broker watch, which answers False on its own time-out.

    ``receive`` is the request's, its body already read; without it nobody looks at the connection.
    """
    coming = asyncio.ensure_future(awaited)
    leaving = asyncio.ensure_future(_disconnected(receive)) if receive else None
    try:
        with bell.heard() as stopping:
            events: set[asyncio.Future[Any]] = {coming, stopping}
            if leaving:
                events.add(leaving)
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return Ending.CAME if coming.result() else Ending.TIMED_OUT
            return Ending.LEFT if leaving and leaving.done() else Ending.STOPPING
    finally:
        coming.cancel()
        if leaving:
            leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
