"""Tests of ``broker.exchange`` and ``broker.coalescer``: commands out and answers back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis

from broker.coalescer import Coalescer
from broker.connection import connect_async
from broker.exchange import Command, Exchange, packed
from broker.settings import BrokerSettings
from tests.redis_server import RedisServer


@pytest.fixture
async def exchange(broker_settings: BrokerSettings) -> AsyncIterator[Exchange]:
    made = Exchange(connect_async(broker_settings), timeout_s=10.0)
    yield made
    await made.close()


async def run(exchange: Exchange, *commands: Command) -> list[Any]:
    return await exchange.run(commands, [packed(command) for command in commands])


async def test_answers_come_in_order_with_errors_among_them(exchange: Exchange) -> None:
    fill = [("HSET", "h", "a", 1, "b", 2.5), ("EXPIRE", "h", 60)]
    answers = await run(exchange, *fill, ("HGETALL", "h"), ("XLEN", "h"), ("HGET", b"h", "a"))
    assert answers[:3] == [2, 1, {b"a": b"1", b"b": b"2.5"}]
    assert isinstance(answers[3], redis.ResponseError)
    assert answers[4] == b"1"
    echoes = [("ECHO", f"é{n}") for n in range(100)]
    assert await run(exchange, *echoes) == [f"é{n}".encode() for n in range(100)]


async def test_one_connection_serves_one_exchange_after_another(
    exchange: Exchange, redis_server: RedisServer
) -> None:
    ids = [await run(exchange, ("CLIENT", "ID")) for _ in range(3)]
    assert ids[0] == ids[1] == ids[2]
    both = await asyncio.gather(run(exchange, ("CLIENT", "ID")), run(exchange, ("CLIENT", "ID")))
    assert both[0] != both[1]


async def test_a_connection_that_was_closed_meanwhile_is_replaced(
    exchange: Exchange, redis_server: RedisServer
) -> None:
    await run(exchange, ("PING",))
    redis_server.kill()
    await asyncio.to_thread(redis_server.start)  # the loop runs on and hears that it is closed
    assert await run(exchange, ("ECHO", "back")) == [b"back"]


async def test_a_cut_in_the_middle_is_an_error_and_then_over(
    exchange: Exchange, redis_server: RedisServer
) -> None:
    (before,) = await run(exchange, ("CLIENT", "ID"))
    with pytest.raises(redis.ConnectionError):
        await run(exchange, ("CLIENT", "KILL", "ID", before, "SKIPME", "no"), ("ECHO", "late"))
    assert await run(exchange, ("ECHO", "again")) == [b"again"]


async def test_a_server_that_is_away_is_an_error(
    exchange: Exchange, redis_server: RedisServer
) -> None:
    redis_server.kill()
    try:
        with pytest.raises(redis.ConnectionError):
            await run(exchange, ("PING",))
    finally:
        redis_server.start()
    assert await run(exchange, ("ECHO", "back")) == [b"back"]


async def test_an_answer_that_does_not_come_is_a_time_out(broker_settings: BrokerSettings) -> None:
    exchange = Exchange(connect_async(broker_settings), timeout_s=0.1)
    with pytest.raises(redis.TimeoutError, match=r"no answer within 0\.1 s"):
        await run(exchange, ("BLPOP", "nothing", 5))
    assert await run(exchange, ("ECHO", "next")) == [b"next"]  # and not the answer that came late
    await exchange.close()


async def test_a_command_without_a_form_fails_for_its_caller_alone(
    broker_settings: BrokerSettings,
) -> None:
    coalescer = Coalescer(connect_async(broker_settings), 10.0)
    answers = await asyncio.gather(
        coalescer.execute("ECHO", "one"),
        coalescer.execute("ECHO", object()),
        coalescer.execute("XLEN"),
        coalescer.execute("ECHO", "two"),
        return_exceptions=True,
    )
    assert answers[0] == b"one"
    assert isinstance(answers[1], TypeError)
    assert isinstance(answers[2], redis.ResponseError)
    assert answers[3] == b"two"
    await coalescer.close()


async def test_calls_of_one_tick_share_a_connection(broker_settings: BrokerSettings) -> None:
    coalescer = Coalescer(connect_async(broker_settings), 10.0)
    ids = await asyncio.gather(*(coalescer.execute("CLIENT", "ID") for _ in range(200)))
    assert len(set(ids)) == 1
    await coalescer.close()


async def test_more_than_one_pipeline_holds_are_all_answered(
    broker_settings: BrokerSettings,
) -> None:
    coalescer = Coalescer(connect_async(broker_settings), 10.0)
    given_up = asyncio.ensure_future(coalescer.execute("ECHO", "nobody"))
    calls = [asyncio.ensure_future(coalescer.execute("ECHO", str(n))) for n in range(3_000)]
    await asyncio.sleep(0)
    given_up.cancel()
    assert await asyncio.gather(*calls) == [str(n).encode() for n in range(3_000)]
    await coalescer.close()
