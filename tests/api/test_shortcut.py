"""Tests of ``api.shortcut``: the short way answers as the long one does."""

import json

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from api.problems import Problem
from api.shortcut import Shortcut
from broker.errors import BrokerUnavailable


async def call(shortcut: Shortcut, method: str, path: str) -> tuple[int, bytes, Scope]:
    """Status, body and what the request's scope became."""
    said: list[Message] = []
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": []}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    await shortcut(scope, receive, send)
    return said[0]["status"], said[1]["body"], scope


async def routes(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("the long way")(scope, receive, send)


async def hello(request: Request) -> Response:
    assert await request.body() == b""
    return PlainTextResponse("the short way")


@pytest.mark.parametrize("at", [("GET", "/hot"), ("POST", "/hot/"), ("POST", "/other")])
async def test_what_is_not_listed_goes_to_the_routes(at: tuple[str, str]) -> None:
    shortcut = Shortcut(routes, {("POST", "/hot"): hello})
    assert (await call(shortcut, *at))[:2] == (200, b"the long way")


async def test_what_is_listed_is_called_as_a_route_calls_it() -> None:
    shortcut = Shortcut(routes, {("POST", "/hot"): hello})
    status, body, scope = await call(shortcut, "POST", "/hot")
    assert (status, body) == (200, b"the short way")
    assert scope["endpoint"] is hello  # by which the metrics know the route


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Problem(422, "wrong", "It is wrong."), 422),
        (BrokerUnavailable("away"), 503),
        (ClientDisconnect(), 499),
    ],
)
async def test_errors_are_answered_as_the_app_answers_them(error: Exception, status: int) -> None:
    async def fails(request: Request) -> Response:
        raise error

    answered, body, _ = await call(Shortcut(routes, {("POST", "/hot"): fails}), "POST", "/hot")
    assert answered == status
    if body:
        assert json.loads(body)["status"] == status


async def test_mistakes_of_ours_are_left_to_the_middleware_around() -> None:
    async def fails(request: Request) -> Response:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await call(Shortcut(routes, {("POST", "/hot"): fails}), "POST", "/hot")
