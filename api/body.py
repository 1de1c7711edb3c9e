"""The cap on request bodies: refused from the Content-Length or while they stream in, before they
are held in memory."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem

LINGER_S = 5.0  # how long a refused body is still read, so that the caller gets to our answer


class BodyCap:
    """ASGI middleware; raises a 413 Problem out of ``receive``.

    ``exceptions`` are the caps of paths that have their own.

    After the answer the rest of the body is read and dropped for a while and the connection is
    closed: closing at once would reset it, and the reset can overtake the answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        exceptions: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._exceptions = exceptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b""
        )
        most = self._exceptions.get(scope["path"], self._max_body_bytes)
        taken, refused, more = 0, False, True

        async def receive_capped() -> Message:
            nonlocal taken, refused, more
            # Checked before the first read, so that a caller who awaits 100 Continue never gets it.
            if not refused and declared.isdigit() and int(declared[:19]) > most:
                refused = True
                raise _too_large(most)
            message = await receive()
            taken += len(message.get("body", b""))
            more = message.get("more_body", False)
            if taken > most:
                refused = True
                raise _too_large(most)
            return message

        async def send_lingering(message: Message) -> None:
            if not refused:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
            else:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while more and (await receive()).get("more_body", False):
                            pass
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_capped, send_lingering)


def _too_large(most: int) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"The body is larger than {most:,} bytes. Split it over several requests.",
        field="body",
    )
