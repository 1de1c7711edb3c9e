"""Tests of ``api.connections`` against real processes: idle, slow and oversized heads."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from api.connections import MAX_HEAD_BYTES, SPARE_FILES, most_connections
from tests.api.stage import Process, api_process
from tests.redis_server import RedisServer, wait_until

pytestmark = pytest.mark.slow

IDLE = 10_000
SOURCES = 4  # addresses that callers come from


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Lets this process hold so many files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, limits[1]), limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def address(process: Process) -> tuple[str, int]:
    parts = urlsplit(process.url)
    return parts.hostname or "", parts.port or 0


@contextmanager
def idle(process: Process, count: int) -> Iterator[list[socket.socket]]:
    """So many connections on which nothing is said."""
    opened: list[socket.socket] = []
    try:
        for number in range(count):
            source = (f"127.0.0.{2 + number % SOURCES}", 0)
            opened.append(socket.create_connection(address(process), 60, source))
        yield opened
    finally:
        for connection in opened:
            connection.close()


def probe(process: Process) -> None:
    """Asks on a new connection whether the process is alive."""
    assert httpx.get(f"{process.url}/healthz", timeout=120).status_code == 200


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


def answer_to(connection: socket.socket, piece: bytes) -> bytes:
    """What comes back while a piece is sent again and again, until the other side has closed."""
    answer = b""
    connection.settimeout(0.02)
    for _ in range(10_000):
        if not answer:
            with suppress(OSError):  # closed: what was said before may still be there to be read
                connection.sendall(piece)
        try:
            part = connection.recv(65_536)
        except TimeoutError:
            continue
        except OSError:  # closed while we went on sending
            return answer
        if not part:
            return answer
        answer += part
    pytest.fail("the connection is still open")


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed, without waiting."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        connection.setblocking(True)


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < IDLE + 2_000,
    reason="this machine does not let a process hold so many files",
)
def test_ten_thousand_idle_connections_stop_no_probe(redis_server: RedisServer) -> None:
    with (
        open_files(IDLE + 2_000),
        api_process(redis_server.url, "--head-timeout-s", "300") as process,
        idle(process, IDLE),
    ):
        probe(process)
        wait_until(
            lambda: len(os.listdir(f"/proc/{process.pid}/fd")) > IDLE, description="all are taken"
        )
        probe(process)


def test_beyond_the_most_the_one_idle_longest_is_closed(redis_server: RedisServer) -> None:
    flags = ("--head-timeout-s", "300", "--max-connections", "100")
    with api_process(redis_server.url, *flags) as process, idle(process, 300) as opened:
        probe(process)
        wait_until(lambda: sum(map(closed, opened)) >= 200, description="the oldest are closed")
        states = [closed(connection) for connection in opened]
        assert states == sorted(states, reverse=True), "the newest are left"
        assert not states[-1]


@pytest.fixture(scope="module")
def impatient(_redis_process: RedisServer) -> Iterator[Process]:
    """An API that waits a quarter of a second for heads and bodies."""
    flags = ("--head-timeout-s", "0.25", "--body-timeout-s", "0.25")
    with api_process(_redis_process.url, *flags) as process:
        yield process


@pytest.fixture(scope="module")
def patient(_redis_process: RedisServer) -> Iterator[Process]:
    with api_process(_redis_process.url) as process:
        yield process


@pytest.fixture
def connection(impatient: Process) -> Iterator[socket.socket]:
    with socket.create_connection(address(impatient), 60) as connection:
        yield connection


def test_who_says_nothing_is_hung_up_on(connection: socket.socket) -> None:
    assert received(connection) == b""


@pytest.mark.parametrize("said", [b"GET", b"GET /healthz HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_that_does_not_end_is_answered_408(connection: socket.socket, said: bytes) -> None:
    connection.sendall(said)
    answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert b'"code":"slow_head"' in answer


def test_a_head_that_trickles_gains_no_time(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\n")
    assert answer_to(connection, b"X: y\r\n").startswith(b"HTTP/1.1 408 ")


def test_blank_lines_keep_no_connection_open(connection: socket.socket) -> None:
    assert answer_to(connection, b"\r\n") == b""


def in_time(impatient: Process, head: bytes, status: bytes) -> socket.socket:
    """A connection whose head was sent in time, as its answer says: on a busy machine it may come
    too late for an impatient API, and then another one is tried."""
    for _ in range(100):
        connection = socket.create_connection(address(impatient), 60)
        with suppress(ConnectionError):
            connection.sendall(head)
            if connection.recv(len(status)) == status:
                return connection
        connection.close()
    pytest.fail(f"no answer {status!r}")


def test_a_second_head_has_its_own_time(impatient: Process) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with in_time(impatient, head, b"HTTP/1.1 200 OK") as connection:
        connection.sendall(b"GET /hea")
        assert b"HTTP/1.1 408 " in received(connection)


def test_a_body_that_trickles_is_answered_408(redis_server: RedisServer) -> None:
    with (
        api_process(redis_server.url, "--body-timeout-s", "0.25") as process,
        socket.create_connection(address(process), 60) as connection,
    ):
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        answer = answer_to(connection, b" ")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert b'"code":"slow_body"' in answer


def test_a_body_that_nobody_reads_ends_with_its_answer(impatient: Process) -> None:
    head = b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"
    with in_time(impatient, head, b"HTTP/1.1 404 ") as connection:
        received(connection)


@pytest.mark.parametrize("said", [b"GET /" + b"x" * 70_000, b"GET / HTTP/1.1\r\nX: " + b"y" * 9])
def test_a_head_without_end_is_refused_by_its_size(patient: Process, said: bytes) -> None:
    with socket.create_connection(address(patient), 60) as connection:
        refused_by_its_size(connection, said)


def refused_by_its_size(connection: socket.socket, said: bytes) -> None:
    connection.sendall(said)
    try:
        for _ in range(64):
            connection.sendall(b"y" * 4_096)
        answer = received(connection)
    except ConnectionError:
        return  # closed while we went on sending, and the reset overtook the answer
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_refusals_are_logged_without_what_was_sent(impatient: Process) -> None:
    with socket.create_connection(address(impatient), 60) as connection:
        connection.sendall(b"GET /Geheimnis")
        received(connection)
    wait_until(lambda: "slow_head" in impatient.log, description="the refusal is logged")
    assert "Geheimnis" not in impatient.log


def test_the_limit_on_files_bounds_connections(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert most_connections(1_000) == 1_000
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1_000 + SPARE_FILES
        if hard != resource.RLIM_INFINITY:
            assert most_connections(hard) == hard - SPARE_FILES
            assert "leaves room for" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert MAX_HEAD_BYTES == 32 * 1024
