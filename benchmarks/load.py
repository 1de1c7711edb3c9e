"""Load on a server of this machine: requests sent at fixed times, whatever becomes of the answers
(open loop), or as fast as a number of connections allows (closed loop). HTTP/1.1 by hand, so that
the client takes little of the processors that it shares with what it measures."""

import asyncio
import ipaddress
import itertools
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = tuple[str, int]

HEAD_BYTES = 65_536
TIMED_OUT = "timeout"
ANSWER_S = 60.0  # how long callers wait who ask again


@dataclass(frozen=True)
class Request:
    """What is sent, and what makes its answer the right one."""

    raw: bytes
    reject: Callable[[int, bytes], str]  # "" for a right answer, else what is wrong with it


@dataclass(frozen=True)
class Answer:
    """The end of one request. ``latency_s`` counts from when the request was due, so that a client
    that is late itself does not hide it; or from when it was sent, if that was earlier."""

    latency_s: float
    failure: str = ""  # "" for a right answer in time
    body: bytes = b""  # of a right answer
    ended_s: float = 0.0  # since the load began


now_s = time.perf_counter  # loop.time of uvloop knows no less than a millisecond


def address(url: str) -> Address:
    """Where to connect to. Raises ValueError unless it is plain HTTP on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or parts.path not in ("", "/"):
        raise ValueError(f"{url} is not of the form http://127.0.0.1:9527")
    if host != "localhost" and not _loopback(host):
        raise ValueError(f"{host} is another machine: this load is for one's own only")
    return host, parts.port or 80


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def message(method: str, path: str, document: object = None, *headers: str) -> bytes:
    """A request as bytes."""
    body = b"" if document is None else json.dumps(document, ensure_ascii=False).encode()
    kind = b"Content-Type: application/json\r\n" if body else b""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
        + kind
        + "".join(f"{header}\r\n" for header in headers).encode()
        + b"\r\n"
        + body
    )


class Connection:
    """One connection, kept open from one exchange to the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._last = False  # the server closes it after the last answer

    @classmethod
    async def open(cls, where: Address) -> "Connection":
        return cls(*await asyncio.open_connection(*where, limit=HEAD_BYTES))

    async def exchange(self, raw: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError or EOFError when the connection breaks, ValueError when
        what comes back is not an answer of known length."""
        self._writer.write(raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        self._last = headers.get("connection") == "close"
        if "content-length" not in headers:
            raise ValueError("an answer without Content-Length")
        return int(status.split(" ")[1]), await self._reader.readexactly(
            int(headers["content-length"])
        )

    @property
    def open_still(self) -> bool:
        """Whether it can take another exchange, as far as one can tell from here."""
        return not (self._last or self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        self._writer.close()


class Pool:
    """Connections that are kept from one request to the next, and more of them while all are
    busy."""

    def __init__(self, where: Address, kept: int) -> None:
        self._where = where
        self._kept = kept
        self._idle: list[Connection] = []

    async def fill(self) -> None:
        """Opens as many as are kept."""
        missing = self._kept - len(self._idle)
        self._idle += [await Connection.open(self._where) for _ in range(missing)]

    async def take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open_still:
                return connection
            connection.close()
        return await Connection.open(self._where)

    def give_back(self, connection: Connection) -> None:
        """Only after a whole exchange."""
        if connection.open_still and len(self._idle) < self._kept:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


def poisson(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """When requests are due that come independently of one another, ``rate`` a second: seconds from
    the start, in order. The same for the same seed."""
    rng = random.Random(seed)
    due_s: list[float] = []
    at_s = rng.expovariate(rate)
    while at_s < seconds:
        due_s.append(at_s)
        at_s += rng.expovariate(rate)
    return due_s


async def open_loop(
    where: Address,
    requests: Iterable[Request],
    due_s: Iterable[float],
    timeout_s: float,
    *,
    kept: int = 0,
) -> list[Answer]:
    """Sends each request when it is due, whatever has become of the earlier ones; answers in order.
    Each has a connection of its own unless some are ``kept``; those are opened when all are busy,
    as a client's pool does it: a service may hang up on connections that say nothing."""
    pool = Pool(where, kept)
    began_s = now_s()
    tasks = []
    for request, at_s in zip(requests, due_s, strict=True):
        due = began_s + at_s
        await asyncio.sleep(max(0.0, due - now_s()))
        tasks.append(asyncio.create_task(_answer(pool, request, due, timeout_s, began_s)))
    try:
        return await asyncio.gather(*tasks)
    finally:
        pool.close()


def evenly(count: int, every_s: float) -> list[float]:
    """When requests are due that come one every so many seconds."""
    return [number * every_s for number in range(count)]


async def _answer(
    pool: Pool, request: Request, due_s: float, timeout_s: float, began_s: float
) -> Answer:
    """Sends one request, now; whatever goes wrong is told in the answer."""
    connection: Connection | None = None
    failure, body = "", b""
    asked_s = min(due_s, now_s())  # timers of uvloop may be a millisecond early
    try:
        async with asyncio.timeout(due_s + timeout_s - now_s()):
            connection = await pool.take()
            status, body = await connection.exchange(request.raw)
            failure = request.reject(status, body)
            pool.give_back(connection)
            connection = None
    except TimeoutError:
        failure = TIMED_OUT
    except (OSError, EOFError) as error:
        failure = f"connection: {type(error).__name__}"
    except (ValueError, LookupError, TypeError, AttributeError, asyncio.LimitOverrunError):
        failure = "not an answer"  # it has not the form in which ``reject`` looks for a text
    finally:
        if connection is not None:
            connection.close()
    ended_s = now_s()
    if ended_s > due_s + timeout_s:  # however right: a busy client may read it before its timer
        failure = TIMED_OUT
    return Answer(ended_s - asked_s, failure, b"" if failure else body, ended_s - began_s)


async def closed_loop(
    where: Address,
    requests: Iterable[Request],
    connections: int,
    seconds: float,
    *,
    kept: bool = True,
    pauses_s: Iterator[float] | None = None,
) -> list[Answer]:
    """Sends the requests round and round, on each connection the next one after the answer, and
    after one of ``pauses_s``, until ``seconds`` are over; what is on its way then is waited for.
    Unless they are ``kept``, each request opens its connection."""
    answers: list[Answer] = []
    rounds = itertools.cycle(requests)
    pool = Pool(where, connections if kept else 0)

    async def turn(began_s: float) -> None:
        while (asked_s := now_s()) < began_s + seconds:
            answers.append(await _answer(pool, next(rounds), asked_s, ANSWER_S, began_s))
            if pauses_s is not None:
                await asyncio.sleep(next(pauses_s))

    await pool.fill()
    began_s = now_s()
    try:
        await asyncio.gather(*(turn(began_s) for _ in range(connections)))
    finally:
        pool.close()
    return answers


async def drained(
    where: Address, requests: Sequence[Request], connections: int, timeout_s: float
) -> list[Answer]:
    """Sends every request once, the next one on each connection after its answer: what a service
    does when it is never without work. Answers in the order of the requests."""
    answers = [Answer(timeout_s, TIMED_OUT)] * len(requests)
    turns = iter(range(len(requests)))
    pool = Pool(where, min(connections, len(requests)))

    async def turn(began_s: float) -> None:
        for number in turns:
            left_s = began_s + timeout_s - (asked_s := now_s())
            if left_s <= 0:
                return  # who was not asked any more is in the list as not answered
            answers[number] = await _answer(pool, requests[number], asked_s, left_s, began_s)

    await pool.fill()
    began_s = now_s()
    try:
        await asyncio.gather(*(turn(began_s) for _ in range(connections)))
    finally:
        pool.close()
    return answers


def steady_rate(ended_s: Sequence[float], seconds: float, callers: int) -> float:
    """Answers a second, given when each came, from ``callers`` who asked again for so many seconds
    and no longer: those that came until then, or all if that were few. What was still on its way
    when they stopped would else be counted on top."""
    early = sum(end_s <= seconds for end_s in ended_s)
    if early >= callers:
        return early / seconds
    return len(ended_s) / max(ended_s) if ended_s else 0.0


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted values; there must be one."""
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]
