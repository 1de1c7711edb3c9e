"""Load on a server of this machine: requests sent at fixed times, whatever becomes of the answers
(open loop), or as fast as a number of connections allows (closed loop). HTTP/1.1 by hand, so that
the client takes little of the processors that it shares with what it measures."""

import asyncio
import ipaddress
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = tuple[str, int]

HEAD_BYTES = 65_536
TIMED_OUT = "timeout"


@dataclass(frozen=True)
class Request:
    """What is sent, and what makes its answer the right one."""

    raw: bytes
    reject: Callable[[int, bytes], str]  # "" for a right answer, else what is wrong with it


@dataclass(frozen=True)
class Answer:
    """The end of one request. ``latency_s`` counts from when the request was due, so that a client
    that is late itself does not hide it."""

    latency_s: float
    failure: str = ""  # "" for a right answer in time
    body: bytes = b""


now_s = time.perf_counter


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


def message(method: str, path: str, document: object = None) -> bytes:
    """A request as bytes."""
    body = b"" if document is None else json.dumps(document, ensure_ascii=False).encode()
    kind = b"Content-Type: application/json\r\n" if body else b""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
        + kind
        + b"\r\n"
        + body
    )


class Connection:
    """One connection, kept open from one exchange to the next."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

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
        if "content-length" not in headers:
            raise ValueError("an answer without Content-Length")
        return int(status.split(" ")[1]), await self._reader.readexactly(
            int(headers["content-length"])
        )

    def close(self) -> None:
        self._writer.close()


async def open_loop(
    where: Address, requests: Sequence[Request], sleep_s: float, timeout_s: float
) -> list[Answer]:
    """Sends one request every ``sleep_s``, each on a connection of its own; answers in order."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    tasks = []
    for number, request in enumerate(requests):
        due_s = began_s + number * sleep_s
        await asyncio.sleep(max(0.0, due_s - clock()))
        tasks.append(asyncio.create_task(_one(where, request, due_s, timeout_s)))
    return await asyncio.gather(*tasks)


async def _one(where: Address, request: Request, due_s: float, timeout_s: float) -> Answer:
    clock = asyncio.get_running_loop().time
    connection: Connection | None = None
    failure, body = "", b""
    try:
        async with asyncio.timeout_at(due_s + timeout_s):
            connection = await Connection.open(where)
            status, body = await connection.exchange(request.raw)
            failure = request.reject(status, body)
    except TimeoutError:
        failure = TIMED_OUT
    except (OSError, EOFError) as error:
        failure = f"connection: {type(error).__name__}"
    except (ValueError, asyncio.LimitOverrunError):
        failure = "not an answer"
    finally:
        if connection is not None:
            connection.close()
    return Answer(clock() - due_s, failure, body)


async def closed_loop(
    where: Address, requests: Sequence[Request], connections: int, seconds: float
) -> list[Answer]:
    """Sends the requests round and round, on each connection the next one after the answer."""
    clock = asyncio.get_running_loop().time
    answers: list[Answer] = []
    rounds = itertools.cycle(requests)

    async def turn(connection: Connection, end_s: float) -> None:
        while (began_s := clock()) < end_s:
            request = next(rounds)
            status, body = await connection.exchange(request.raw)
            answers.append(Answer(clock() - began_s, request.reject(status, body)))

    opened = [await Connection.open(where) for _ in range(connections)]
    try:
        async with asyncio.timeout(seconds + 60):
            await asyncio.gather(*(turn(one, clock() + seconds) for one in opened))
    finally:
        for connection in opened:
            connection.close()
    return answers


async def drained(
    where: Address, requests: Sequence[Request], connections: int, timeout_s: float
) -> list[Answer]:
    """Sends every request once, the next one on each connection after its answer: what a service
    does when it is never without work. Answers in the order of the requests."""
    clock = asyncio.get_running_loop().time
    answers = [Answer(timeout_s, TIMED_OUT)] * len(requests)
    turns = iter(range(len(requests)))

    async def turn(connection: Connection) -> None:
        for number in turns:
            began_s, request = clock(), requests[number]
            status, body = await connection.exchange(request.raw)
            failure = request.reject(status, body)
            answers[number] = Answer(clock() - began_s, failure, body)

    opened = [await Connection.open(where) for _ in range(min(connections, len(requests)))]
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(turn(one) for one in opened))
    except TimeoutError:
        pass  # who was not answered is in the list as such
    finally:
        for connection in opened:
            connection.close()
    return answers


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of sorted values; there must be one."""
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]
