"""The body cap, over real connections: what counts is when the refusal comes."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from api.app import create_app
from api.settings import ApiSettings
from broker.settings import BrokerSettings
from tests.api.stage import Process, api_process, body, living
from tests.redis_server import RedisServer

CAP = 100_000
HEAD = "POST /translation HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n"


@pytest.fixture
def connection(redis_server: RedisServer) -> Iterator[socket.socket]:
    with api_process(redis_server.url, "--max-body-bytes", str(CAP)) as process:
        yield from _connected(process)


def _connected(process: Process) -> Iterator[socket.socket]:
    address = urlsplit(process.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        yield connection


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


@pytest.mark.slow
def test_a_chunked_body_is_refused_while_it_streams(connection: socket.socket) -> None:
    connection.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    for _ in range(4):
        connection.sendall(chunk)
    # No last chunk was sent, so that the body has not ended.
    answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    connection.sendall(b"0\r\n\r\n")
    assert b"body_too_large" in answer + received(connection)


@pytest.mark.slow
def test_who_asks_for_100_continue_is_refused_before_sending(connection: socket.socket) -> None:
    head = f"{HEAD}Content-Length: {CAP + 1}\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
def test_an_answer_survives_a_body_that_keeps_coming(connection: socket.socket) -> None:
    connection.sendall(f"{HEAD}Content-Length: 20000000\r\n\r\n".encode())
    for _ in range(200):
        connection.sendall(b" " * 100_000)
    answer = received(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer


async def test_a_declared_length_is_believed_and_checked(broker_settings: BrokerSettings) -> None:
    app = create_app(broker_settings, ApiSettings(max_body_bytes=1_000))
    async with living(app) as client:
        answer = await client.post("/translation", json=body("x" * 1_000))
        assert (answer.status_code, answer.json()["field"]) == (413, "body")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["connection"] == "close"
        fitting = await client.post("/translation", json=body("x"))
        assert fitting.json()["code"] == "no_model"


async def test_a_body_in_many_pieces(client: httpx.AsyncClient) -> None:
    async def pieces() -> object:
        for byte in b'{"payload":7}':
            yield bytes([byte])

    answer = await client.post("/jobs", content=pieces())  # type: ignore[arg-type]
    assert answer.json()["field"] == "payload"
