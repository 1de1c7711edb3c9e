"""The body cap, over real connections: what counts is when the refusal comes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from api.app import create_app
from api.settings import ApiSettings
from broker.settings import BrokerSettings
from tests.api.stage import body, listening, living

CAP = 100_000
HEAD = "POST /translation HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n"


@pytest_asyncio.fixture
async def connection(broker_settings: BrokerSettings) -> AsyncIterator[socket.socket]:
    """A connection to a real server; the tests use it in a thread."""
    app = create_app(broker_settings, ApiSettings(max_body_bytes=CAP))
    async with listening(app) as url:
        address = urlsplit(url).hostname, urlsplit(url).port
        with socket.create_connection(address, timeout=120) as connection:
            yield connection


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    while part := connection.recv(65_536):
        found += part
    return found


async def test_a_chunked_body_is_refused_while_it_streams(connection: socket.socket) -> None:
    await asyncio.to_thread(_a_chunked_body_is_refused_while_it_streams, connection)


def _a_chunked_body_is_refused_while_it_streams(connection: socket.socket) -> None:
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


async def test_no_100_continue_for_too_much(
    connection: socket.socket,
) -> None:
    await asyncio.to_thread(_no_100_continue_for_too_much, connection)


def _no_100_continue_for_too_much(connection: socket.socket) -> None:
    head = f"{HEAD}Content-Length: {CAP + 1}\r\nExpect: 100-continue\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")


async def test_an_answer_survives_a_body_that_keeps_coming(connection: socket.socket) -> None:
    await asyncio.to_thread(_an_answer_survives_a_body_that_keeps_coming, connection)


def _an_answer_survives_a_body_that_keeps_coming(connection: socket.socket) -> None:
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


@pytest.mark.parametrize(
    ("piece", "status", "code"),
    [
        (b"[" * 10_000, 400, "too_deep"),
        (b'{"id":1,"text":"a"},' * 1_000, 422, "too_many_records"),
        (b"[]," * 5_000, 413, "too_many_values"),
    ],
)
async def test_structure_is_refused_while_it_streams(
    broker_settings: BrokerSettings, piece: bytes, status: int, code: str
) -> None:
    """What the decoder would find, if it ever saw this body, is that it ends too early."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"payload":{"records":[' if code == "too_many_records" else b"["
        for _ in range(20):
            yield piece

    app = create_app(broker_settings, ApiSettings(max_body_bytes=2_000_000))
    async with living(app) as client:
        answer = await client.post("/jobs", content=pieces())
    assert (answer.status_code, answer.json()["code"]) == (status, code)
