"""Waiting in an event loop for what a test is about, instead of sleeping."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

LOOK_S = 0.01
TIMEOUT_S = 60.0


async def reached(
    predicate: Callable[[], Any], *, description: str, timeout_s: float = TIMEOUT_S
) -> Any:
    """What ``predicate`` answers once that is true; it may be a coroutine function."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                found = predicate()
                if isinstance(found, Awaitable):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {description}") from None
