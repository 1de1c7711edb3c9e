"""Connections before and between requests: what a caller may cost who never sends a request.

uvicorn's protocol waits for ever for the head of a first request, and parses heads of any size.
Here a head has a time and a size, what follows an answer has a time, and of more connections than
there may be the one that has been idle longest is closed: whoever holds ten thousand connections
open keeps nobody else out. What happens between a head and its answer is the business of
``api.body`` and of the routes.
"""

import asyncio
import logging
import resource
import time
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.problems import Problem
from api.settings import LEAST_CONNECTIONS

log = logging.getLogger("dragoman.api")

MAX_HEAD_BYTES = 32 * 1024  # request line and headers
SWEEP_S = 0.5
SPARE_FILES = 256  # of a process, for anything but connections of callers


@dataclass(frozen=True)
class Patience:
    """How long a connection may be quiet, in seconds, and how many there may be."""

    head_s: float
    keep_alive_s: float
    most: int


class Connections:
    """The idle connections of one process: those on which no request is being answered. The ones
    idle longest come first; each has a time at which it is closed."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self._idle: dict[Connection, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self, **arguments: Any) -> "Connection":
        """A protocol, made as uvicorn makes its own."""
        return Connection(self, **arguments)

    def idle(self, connection: "Connection", until: float) -> None:
        """Notes that a connection is idle and when that has to end; its place in the order stays if
        it was idle before."""
        self._idle[connection] = until
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(SWEEP_S, self._sweep)

    def busy(self, connection: "Connection") -> None:
        self._idle.pop(connection, None)

    def make_room(self, connection: "Connection") -> None:
        """Closes the connection that has been idle longest if there are more than there may be; the
        newest is spared."""
        if len(connection.connections) > self.patience.most:
            oldest = next(iter(self._idle), connection)
            if oldest is not connection:
                self.busy(oldest)
                oldest.transport.close()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in [one for one, until in self._idle.items() if until <= now]:
            self.busy(connection)
            connection.expire()
        self._sweeper = None
        if self._idle:
            self._sweeper = next(iter(self._idle)).loop.call_later(SWEEP_S, self._sweep)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a bound on everything that comes before an app is called."""

    def __init__(self, register: Connections, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._register = register
        self._head_bytes = 0
        self._in_head = False
        self._whole = True  # the last request has come to its end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._register.idle(self, time.monotonic() + self._register.patience.head_s)
        self._register.make_room(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._register.busy(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # A head that began in this piece is counted from the next one on: what came before it is
        # the end of a body. Heads that end are measured by ``api.gate``.
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._whole = True, False
        if self.cycle is None or self.cycle.response_complete:
            self._register.idle(self, time.monotonic() + self._register.patience.head_s)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._register.busy(self)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return  # the next request came early and is being answered
        patience = self._register.patience
        wait_s = patience.keep_alive_s if self._whole else patience.head_s
        self._register.idle(self, time.monotonic() + wait_s)

    def expire(self) -> None:
        """The time of an idle connection is over: 408 to whoever was about to say something."""
        if self._in_head:
            self._refuse(
                Problem(
                    408,
                    "slow_head",
                    "The headers did not come in time. Send them at once.",
                    headers={"Connection": "close"},
                )
            )
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """An answer to a request that no app will see."""
        log.warning("a request was refused before its headers ended: %s", problem.code)
        response = problem.response()
        head = [f"HTTP/1.1 {problem.status} {problem.code}".encode(), b"connection: close"]
        head += [name + b": " + value for name, value in response.raw_headers]
        self.transport.write(b"\r\n".join([*head, b"", bytes(response.body)]))
        self.transport.close()


def head_too_large() -> Problem:
    return Problem(
        431,
        "head_too_large",
        f"The request line and headers are larger than {MAX_HEAD_BYTES:,} bytes. Shorten them.",
    )


def most_connections(wanted: int) -> int:
    """How many connections this process may hold: ``wanted``, as far as the system's limit on open
    files, which is raised for it, allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + SPARE_FILES
    allowed = files if hard == resource.RLIM_INFINITY else min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < files:
        log.warning(
            "the limit on open files (%d) leaves room for %d connections, not --max-connections %d",
            *(allowed, max(LEAST_CONNECTIONS, allowed - SPARE_FILES), wanted),
        )
    return max(LEAST_CONNECTIONS, allowed - SPARE_FILES)
