"""Calls to Redis that wait until it is there: a document outlives an outage."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.errors import BrokerUnavailable

log = logging.getLogger("dragoman.documents")

RETRY_S = 1.0  # while Redis is away

Answer = TypeVar("Answer")


async def reached(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer of a call that may be repeated, however long Redis is away."""
    while True:
        try:
            answer = await call()
        except BrokerUnavailable as error:
            log.warning("%s; trying again", error)
            await asyncio.sleep(RETRY_S)
        else:
            heed_cancellation()
            return answer


def heed_cancellation() -> None:
    """Raises the CancelledError that a call has swallowed: redis-py does that with one that comes
    in the tick of its answer, and whoever went on would wait for what nobody ends any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
