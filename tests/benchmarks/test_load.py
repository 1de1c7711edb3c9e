"""The load: due times, what counts as an answer, and that it stays on this machine."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from benchmarks import load
from benchmarks.requests import translation
from tests.redis_server import closed_port

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
    arrived = 0
    all_there = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await reader.readuntil(b"\r\n\r\n")
        arrived += 1
        if arrived == 5:
            all_there.set()
        await all_there.wait()
        writer.write(OK)

    async with server(respond) as where:
        answers = await load.open_loop(where, [REQUEST] * 5, load.evenly(5, 0.02), 60.0)
    assert [answer.failure for answer in answers] == [""] * 5


@pytest.mark.parametrize(
    ("respond", "failure"),
    [
        (silence, load.TIMED_OUT),
        (slam, "connection: ConnectionResetError"),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbye"), "no"),
        (saying(b"HTTP/1.1 200 OK\r\n\r\n"), "not an answer"),
        (saying(b"nonsense\r\n\r\n"), "not an answer"),
        (saying(b"HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"), "not an answer"),
    ],
)
async def test_what_is_no_answer(respond: Respond, failure: str) -> None:
    async with server(respond) as where:
        timeout_s = 0.5 if respond is silence else 60.0
        (answer,) = await load.open_loop(where, [REQUEST], [0.0], timeout_s)
    assert answer.failure == failure


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"null", b"hi", b'{"result":[{}]}', b'{"result":3}']
)
async def test_an_answer_of_another_form_is_none(body: bytes) -> None:
    request = translation(["Good morning."])
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with server(saying(answer)) as where:
        (found,) = await load.open_loop(where, [request], [0.0], 30.0)
    assert found.failure == "not an answer"
    assert found.body == b""


async def test_an_answer_that_a_busy_client_reads_too_late_is_late() -> None:
    """The answer and the end of the patience are there at once: the loop was busy meanwhile."""

    def busy(status: int, body: bytes) -> str:
        time.sleep(0.3)
        return ""

    request = load.Request(REQUEST.raw, busy)
    async with server(saying(OK)) as where:
        (open_one,) = await load.open_loop(where, [request], [0.0], 0.25)
        (drained_one,) = await load.drained(where, [request], 1, 0.25)
    assert open_one.failure == drained_one.failure == load.TIMED_OUT


async def test_nobody_listens() -> None:
    where = ("127.0.0.1", closed_port())
    (answer,) = await load.open_loop(where, [REQUEST], [0.0], 60.0)
    assert answer.failure == "connection: ConnectionRefusedError"


def test_poisson_arrivals() -> None:
    due_s = load.poisson(rate=50.0, seconds=100.0)
    assert due_s == load.poisson(rate=50.0, seconds=100.0) != load.poisson(50.0, 100.0, seed=1)
    assert due_s == sorted(due_s)
    assert 0 < due_s[0] < due_s[-1] < 100.0
    assert 4_700 < len(due_s) < 5_300  # 5,000 with a standard deviation of 71
    gaps = [later - earlier for earlier, later in pairwise(due_s)]
    # Exponential gaps: the standard deviation is the mean.
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)


async def test_latency_counts_from_when_a_request_was_due() -> None:
    """Coordinated omission: a client that is late itself must not hide it."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with server(respond) as where:
        late, on_time = await load.open_loop(where, [REQUEST] * 2, [-60.0, 0.0], 120.0)
    assert late.latency_s >= 60.0
    assert late.latency_s - on_time.latency_s > 30.0  # about 60 on a machine that is not busy


async def test_latency_counts_from_when_a_request_was_sent_early() -> None:
    """Timers of uvloop know milliseconds, and may be early by one."""
    pool = load.Pool(("127.0.0.1", 1), 0)
    due_s = load.now_s() + 3_600.0
    answer = await load._answer(pool, REQUEST, due_s, 30.0, load.now_s())
    assert answer.failure == "connection: ConnectionRefusedError"
    assert answer.latency_s > 0.0


async def test_connections_that_the_server_has_closed_are_not_used_again() -> None:
    connections = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
        writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        writer.close()

    async with server(respond) as where:
        pool = load.Pool(where, 1)
        await pool.fill()
        kept = await pool.take()
        await kept.exchange(REQUEST.raw)
        pool.give_back(kept)
        another = await pool.take()
        assert another is not kept
        another.close()
        answers = await load.drained(where, [REQUEST] * 3, connections=1, timeout_s=30.0)
    assert [answer.failure for answer in answers] == [""] * 3
    assert connections == 5


async def test_a_connection_that_breaks_is_a_failure_and_the_next_request_goes_on() -> None:
    turns = iter([slam, *[saying(OK)] * 3])

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(turns)(reader, writer)

    async with server(respond) as where:
        answers = await load.drained(where, [REQUEST] * 3, connections=1, timeout_s=30.0)
    broken, *rest = [answer.failure for answer in answers]
    assert broken.startswith("connection: ")
    assert rest == ["", ""]


def test_the_rate_is_what_came_while_callers_kept_coming() -> None:
    ended_s = [number / 100 for number in range(1, 1_101)]
    assert load.steady_rate(ended_s, 10.0, callers=64) == 100.0
    assert load.steady_rate([4.0, 8.0, 16.0], 10.0, callers=64) == 3 / 16
    assert load.steady_rate([], 10.0, callers=1) == 0.0


async def test_kept_connections_are_used_again_and_more_are_opened_while_all_are_busy() -> None:
    connections = 0
    release = asyncio.Event()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await release.wait()
            writer.write(OK)

    async with server(respond) as where:
        sending = asyncio.create_task(load.open_loop(where, [REQUEST] * 3, [0.0] * 3, 30.0, kept=2))
        while connections < 3:
            await asyncio.sleep(0)
        release.set()
        assert not any(answer.failure for answer in await sending)
        due_s = load.evenly(6, 0.02)
        for _ in range(20):  # on a busy machine all six may be sent at once
            connections = 0
            answers = await load.open_loop(where, [REQUEST] * 6, due_s, 30.0, kept=2)
            assert not any(answer.failure for answer in answers)
            if connections < 6:
                break
    assert 1 <= connections < 6


async def test_everything_is_sent_once_and_answered_in_order() -> None:
    names = [str(number).encode() for number in range(20)]

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            name = line.split()[1].strip(b"/")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))

    requests = [
        load.Request(load.message("GET", f"/{name.decode()}"), lambda status, body: "")
        for name in names
    ]
    async with server(respond) as where:
        answers = await load.drained(where, requests, connections=3, timeout_s=30.0)
    assert [answer.body for answer in answers] == names


async def test_who_is_not_answered_in_time_is_told() -> None:
    async with server(silence) as where:
        answers = await load.drained(where, [REQUEST] * 3, connections=2, timeout_s=0.1)
    assert [answer.failure for answer in answers] == [load.TIMED_OUT] * 3


async def test_a_closed_loop_keeps_its_connections() -> None:
    async with server(saying(OK)) as where:
        answers: list[load.Answer] = []
        while len(answers) <= 4:  # one of each connection is what a busy machine gets done
            answers = await load.closed_loop(where, [REQUEST], connections=2, seconds=0.05)
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
