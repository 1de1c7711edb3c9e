"""The way out of a process that was told to stop: for a while it goes on taking requests, but every
answer ends its connection, so that callers and balancers are elsewhere before the port closes.

Closing at once fails whoever connects or sends just then, and no client may repeat every request.
"""

import asyncio
import signal
from collections.abc import Callable
from types import FrameType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.service import Bell, Service

LAST_WORDS_S = 2.0  # before the grace ends, synchronous requests get their Location


class Farewell:
    """ASGI middleware: once ``draining`` has rung, each answer is its connection's last."""

    def __init__(self, app: ASGIApp, draining: Bell) -> None:
        self._app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining.rung:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_last if scope["type"] == "http" else send)


def stop_gently(number: int, service: Service, grace_s: float, drain_s: float) -> None:
    """From now on signal ``number`` drains first and then does what it did before; a second one
    does that at once. To be called inside the event loop."""
    installed = signal.getsignal(number)
    if not callable(installed):
        raise RuntimeError(f"nothing stops this process on signal {number}")
    loop = asyncio.get_running_loop()
    asked = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        loop.call_soon_threadsafe(_drain, service, grace_s, drain_s, stop)
        if asked > 1:
            installed(number, frame)

    def stop() -> None:
        installed(number, None)

    signal.signal(number, handle)


def _drain(service: Service, grace_s: float, drain_s: float, stop: Callable[[], None]) -> None:
    if service.draining.rung:
        return
    service.drain(grace_s - LAST_WORDS_S)
    asyncio.get_running_loop().call_later(drain_s, stop)
