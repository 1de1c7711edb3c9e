"""The load: due times, what counts as an answer, and that it stays on this machine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from benchmarks import load

Respond = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
REQUEST = load.Request(load.message("GET", "/"), lambda status, body: "" if body == b"hi" else "no")


@asynccontextmanager
async def server(respond: Respond) -> AsyncIterator[load.Address]:
    """A server that lets ``respond`` deal with each connection."""
    waiting: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting.append(writer)
        await respond(reader, writer)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield host, port
        for writer in waiting:
            writer.close()


def saying(answer: bytes) -> Respond:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

    return respond


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def test_requests_are_sent_without_waiting_for_answers() -> None:
    arrived: list[float] = []
    all_there = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.append(asyncio.get_running_loop().time())
        if len(arrived) == 5:
            all_there.set()
        await all_there.wait()
        writer.write(OK)

    async with server(respond) as where:
        answers = await load.open_loop(where, [REQUEST] * 5, load.evenly(5, 0.02), 30.0)
    assert [answer.failure for answer in answers] == [""] * 5
    assert arrived[-1] - arrived[0] >= 0.06
    assert answers[0].latency_s > answers[-1].latency_s


@pytest.mark.parametrize(
    ("respond", "failure"),
    [
        (silence, load.TIMED_OUT),
        (slam, "connection: ConnectionResetError"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye"), "no"),
        (saying(b"HTTP/1.1 200 OK\r\n\r\n"), "not an answer"),
        (saying(b"nonsense\r\n\r\n"), "not an answer"),
    ],
)
async def test_what_is_no_answer(respond: Respond, failure: str) -> None:
    async with server(respond) as where:
        (answer,) = await load.open_loop(where, [REQUEST], [0.0], 0.5)
    assert answer.failure == failure


async def test_nobody_listens() -> None:
    async with server(silence) as where:
        pass
    (answer,) = await load.open_loop(where, [REQUEST], [0.0], 5.0)
    assert answer.failure == "connection: ConnectionRefusedError"


async def test_a_closed_loop_keeps_its_connections() -> None:
    async with server(saying(OK)) as where:
        answers = await load.closed_loop(where, [REQUEST], connections=2, seconds=0.05)
    assert len(answers) > 4
    assert not any(answer.failure for answer in answers)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9527", "http://localhost:9527/", "http://[::1]"])
def test_this_machine(url: str) -> None:
    load.address(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1:9527",
        "http://example.org",
        "https://127.0.0.1",
        "http://127.0.0.1/translation",
        "127.0.0.1:9527",
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"another machine|not of the form"):
        load.address(url)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.5, 50.0), (0.95, 95.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0)]
)
def test_quantiles_are_nearest_rank(share: float, wanted: float) -> None:
    assert load.quantile([float(number) for number in range(1, 101)], share) == wanted
    assert load.quantile([7.0], share) == 7.0
