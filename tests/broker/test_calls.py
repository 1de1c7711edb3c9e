"""Calls below redis-py's own: what comes back, and what a broken connection leaves behind."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from broker.calls import together
from broker.connection import connect
from tests.conftest import settings_for
from tests.redis_server import RedisServer


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    made = connect(settings_for(redis_server))
    yield made
    made.close()


def test_an_error_comes_in_its_place_among_the_answers(client: Any) -> None:
    answers = together(client, [("SET", "a", "one"), ("INCR", "a"), ("GET", "a")])
    assert answers[::2] == [b"OK", b"one"]
    assert isinstance(answers[1], redis.ResponseError)
    assert "not an integer" in str(answers[1])


def test_answers_are_as_the_server_gives_them(client: Any) -> None:
    together(client, [("XADD", "stream", "1-1", "record", "text")])
    read = [("XREAD", "STREAMS", "stream", "0")]
    assert together(client, read) == [[[b"stream", [[b"1-1", [b"record", b"text"]]]]]]


def test_a_connection_that_was_cut_is_opened_again(client: Any, redis_server: RedisServer) -> None:
    assert together(client, [("PING",)]) == [b"PONG"]
    redis_server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert together(client, [("PING",)]) == [b"PONG"]


def test_an_answer_that_came_too_late_is_nobody_elses(
    redis_server: RedisServer, wait_until: Callable[..., Any]
) -> None:
    client = connect(settings_for(redis_server, redis_timeout_s=0.2))

    def echoed() -> list[Any]:
        try:
            return together(client, [("ECHO", "mine"), ("ECHO", "too")])
        except redis.TimeoutError:  # on a busy machine
            return []

    with pytest.raises(redis.TimeoutError):
        together(client, [("BLPOP", "list", 0)])
    redis_server.client.rpush("list", "late")
    assert wait_until(echoed, description="an answer in time") == [b"mine", b"too"]
    client.close()


def test_a_client_keeps_its_connection(client: Any) -> None:
    ids = [together(client, [("CLIENT", "ID")])[0] for _ in range(3)]
    assert ids == [client.client_id()] * 3


def test_a_cut_in_the_middle_is_an_error_and_then_over(client: Any) -> None:
    before = together(client, [("CLIENT", "ID")])[0]
    kill = ("CLIENT", "KILL", "ID", before, "SKIPME", "no")
    with pytest.raises(redis.ConnectionError):
        together(client, [kill, ("ECHO", "late")])
    assert together(client, [("ECHO", "again")]) == [b"again"]


def test_a_server_that_is_away_is_an_error(client: Any, redis_server: RedisServer) -> None:
    together(client, [("PING",)])
    redis_server.kill()
    try:
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                together(client, [("PING",)])
    finally:
        redis_server.start()
    assert together(client, [("ECHO", "back")]) == [b"back"]
