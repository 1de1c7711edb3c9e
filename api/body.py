"""The limits on request bodies while they stream in: how large, how slow, how deep, how many
records. What exceeds one is refused before it is held in memory or decoded."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import Problem
from api.structure import Structure

LINGER_S = 5.0  # how long a refused body is still read, so that the caller gets to our answer
LEAST_BYTES_PER_S = 1024  # a body that goes on coming may take longer by its size over this
UNLOOKED_BYTES = 64 * 1024  # of a body; the decoder is as quick to refuse so few


class BodyCap:
    """ASGI middleware; raises a 408, 413, 400 or 422 Problem out of ``receive``.

    ``exceptions`` are the caps of paths that have their own; their bodies are not JSON.

    After the answer the rest of the body is read and dropped for a while and the connection is
    closed: closing at once would reset it, and the reset can overtake the answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body_bytes: int,
        body_s: float,
        exceptions: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_s = body_s
        self._exceptions = exceptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = next(
            (value for name, value in scope["headers"] if name == b"content-length"), b""
        )
        most = self._exceptions.get(scope["path"], self._max_body_bytes)
        body = _Body(receive, most, self._body_s, scope["path"] not in self._exceptions)

        async def receive_capped() -> Message:
            # Checked before the first read, so that a caller who awaits 100 Continue never gets it.
            if not body.refused and declared.isdigit() and int(declared[:19]) > most:
                body.refused = True
                raise _too_large(most)
            return await body.receive() if body.more else await receive()

        async def send_lingering(message: Message) -> None:
            if not body.refused:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
            else:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while body.more and (await receive()).get("more_body", False):
                            pass
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_capped, send_lingering)


class _Body:
    """A body on its way."""

    def __init__(self, receive: Receive, most: int, body_s: float, structured: bool) -> None:
        self._receive = receive
        self._most = most
        self._body_s = body_s
        self._structure = Structure() if structured else None
        self._unlooked: list[bytes] = []
        self._taken = 0
        self._began = 0.0
        self.more = True
        self.refused = False

    async def receive(self) -> Message:
        """The next piece. Raises Problem for one too much, too late or too complicated."""
        try:
            message = await self._in_time()
            piece = message.get("body", b"")
            self._taken += len(piece)
            self.more = message.get("more_body", False)
            if self._taken > self._most:
                raise _too_large(self._most)
            if self._structure is not None and self.more:
                self._look(self._structure, piece)
        except Problem:
            self.refused = True
            raise
        return message

    async def _in_time(self) -> Message:
        now = time.monotonic()
        self._began = self._began or now
        until_s = self._began + self._body_s + self._taken / LEAST_BYTES_PER_S
        try:
            async with asyncio.timeout(until_s - now):
                return await self._receive()
        except TimeoutError:
            self.more = False  # nobody waits for the rest
            raise Problem(
                408,
                "slow_body",
                f"The body did not come within {self._body_s:g} s, nor at"
                f" {LEAST_BYTES_PER_S:,} bytes a second. Send it at once.",
                field="body",
            ) from None

    def _look(self, structure: Structure, piece: bytes) -> None:
        self._unlooked.append(piece)
        if self._taken > UNLOOKED_BYTES:
            for unlooked in self._unlooked:
                structure.feed(unlooked)
            self._unlooked.clear()


def _too_large(most: int) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"The body is larger than {most:,} bytes. Split it over several requests.",
        field="body",
    )
