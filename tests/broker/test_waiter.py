import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from broker import waiter as waiter_module
from broker.consumer import Consumer
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from tests.broker.parties import answers, serve, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer
from tests.waiting import reached

KEYS = Keys("0")


async def test_progress_is_told_as_it_happens(
    producer: Producer, waiter: Waiter, consumer: Consumer
) -> None:
    request = submission(producer, ["a", "b"])
    with waiter.watching("default", request.id, request) as watch:
        await producer.submit(request)
        deliveries = consumer.read(8, 8, 0)
        consumer.begin(deliveries)
        consumer.complete(answers(deliveries[:1]))
        assert await watch.progressed(60)
        assert not await watch.progressed(0.01)
        assert not await watch.finished(0.01)
        consumer.complete(answers(deliveries[1:]))
        assert await watch.progressed(60)
        assert await watch.finished(60)
        assert await watch.progressed(0)  # an ended request never blocks its followers


async def test_a_cancel_wakes_the_waiters(producer: Producer, waiter: Waiter) -> None:
    request = submission(producer)
    with waiter.watching("default", request.id, request) as watch:
        await producer.submit(request)
        await producer.cancel("default", request.id)
        assert await watch.finished(60)


async def test_a_job_of_another_api_process_is_followed(
    producer: Producer, consumer: Consumer, broker_settings: BrokerSettings
) -> None:
    other = Producer(broker_settings, "api-2")
    listener = Waiter(other)
    await listener.start()
    request = submission(producer, ["a"])
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    consumer.begin(deliveries)  # it looks up the watchers before the second process comes
    with listener.watching("default", request.id) as watch:
        assert await other.watch("default", request.id) is not None
        consumer.complete(answers(deliveries))
        assert await watch.finished(60)
    await listener.stop()
    await other.close()


async def test_a_listener_cut_8_times_under_2000_waiters_leaves_none_hanging(
    redis_server: RedisServer, wait_until: Callable[..., Any]
) -> None:
    settings = settings_for(redis_server, redis_timeout_s=10)
    producer = Producer(settings, "api-1")
    await producer.prepare()
    waiter, consumer = Waiter(producer), worker(settings, 128)
    await waiter.start()
    stop = threading.Event()

    def work() -> None:
        for _ in range(8):
            serve(consumer, 128)
            wait_until(cut, description="the listener is cut")
        while not stop.is_set():
            serve(consumer, 128)

    def cut() -> bool:
        for client in redis_server.client.client_list():
            if client["cmd"] == "xread":
                with contextlib.suppress(redis.ResponseError):  # it was gone by then
                    redis_server.client.execute_command("CLIENT", "KILL", "ID", client["id"])
                    return True
        return False

    async def one() -> bool:
        request = submission(producer, ["text"])
        with waiter.watching("default", request.id, request) as watch:
            await producer.submit(request)
            return await watch.finished(60)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    finished = await asyncio.gather(*(one() for _ in range(2000)))
    stop.set()
    await asyncio.to_thread(thread.join)
    assert all(finished)
    consumer.close()
    await waiter.stop()
    await producer.close()


async def test_the_sweep_finds_what_the_news_missed(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    deaf = Waiter(producer)  # never started: no listener
    request = submission(producer)
    before = time.monotonic()
    with deaf.watching("default", request.id, request) as watch:
        await producer.submit(request)
        await deaf.sweep(time.monotonic() + 10)
        assert not await watch.finished(0)
        serve(consumer)
        await deaf.sweep(before + waiter_module.QUIET_S)
        assert not await watch.finished(0)  # too young for the sweep
        await deaf.sweep(time.monotonic() + waiter_module.QUIET_S)
        assert await watch.finished(0)
    await deaf.stop()


async def test_what_redis_lost_is_submitted_again_under_its_id(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    deaf = Waiter(producer)
    request = submission(producer, ["again"])
    with deaf.watching("default", request.id, request) as watch:
        await producer.submit(request)
        redis_server.client.flushall()
        await deaf.sweep(time.monotonic() + 10)
        consumer.prepare()
        assert serve(consumer) == 1
        await deaf.sweep(time.monotonic() + 20)
        assert await watch.finished(0)
    view = await producer.view("default", request.id)
    assert view is not None
    assert view[1][0].text == "niaga"
    await deaf.stop()


async def test_what_redis_lost_but_for_its_idempotency_key_is_submitted_again(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    deaf = Waiter(producer)
    request = submission(producer, ["again"], idempotency="d" * 64, fingerprint="f")
    with deaf.watching("default", request.id, request) as watch:
        await producer.submit(request)
        assert serve(consumer) == 1
        redis_server.client.delete(KEYS.request("default", request.id))
        await deaf.sweep(time.monotonic() + 10)
        assert serve(consumer) == 1
        await deaf.sweep(time.monotonic() + 20)
        assert await watch.finished(0)
    assert await producer.view("default", request.id) is not None
    await deaf.stop()


@pytest.mark.parametrize("fingerprint", ["the same", "another"])
async def test_whose_idempotency_key_went_to_another_after_the_loss_is_lost(
    fingerprint: str, producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    """A caller repeats a call, on another process and sooner than the sweep."""
    deaf = Waiter(producer)
    key = {"idempotency": "d" * 64, "fingerprint": "the same"}
    lost, other = submission(producer, ["a"], **key), submission(producer, ["b"])
    with (
        deaf.watching("default", lost.id, lost) as watch,
        deaf.watching("default", other.id, other) as others,
    ):
        await producer.submit(lost)
        redis_server.client.flushall()
        await producer.submit(submission(producer, ["a"], **key | {"fingerprint": fingerprint}))
        await deaf.sweep(time.monotonic() + 10)
        assert await watch.finished(0)
        assert not await others.finished(0)
        assert await producer.status("default", other.id) is not None  # queued again all the same
    assert await producer.view("default", lost.id) is None
    await deaf.stop()


@pytest.mark.parametrize("damage", [{"total": "two"}, {"ids": "["}, {"source": b"\xff"}])
async def test_a_damaged_request_keeps_the_sweep_from_nobody(
    damage: dict[str, Any], producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    deaf = Waiter(producer)
    damaged, sound = submission(producer, ["a"]), submission(producer, ["b"])
    with (
        deaf.watching("default", damaged.id) as watch,
        deaf.watching("default", sound.id) as other,
    ):
        for request in (damaged, sound):
            await producer.submit(request)
        serve(consumer)
        redis_server.client.hset(KEYS.request("default", damaged.id), mapping=damage)
        await deaf.sweep(time.monotonic() + 10)
        assert await other.finished(0)
        assert await watch.finished(0)
    assert await producer.view("default", damaged.id) is None
    await deaf.stop()


async def test_a_lost_request_that_cannot_be_submitted_again_ends_its_watch(
    producer: Producer, redis_server: RedisServer
) -> None:
    deaf = Waiter(producer)
    request = submission(producer)
    await producer.submit(request)
    with deaf.watching("default", request.id) as watch:
        redis_server.client.flushall()
        await deaf.sweep(time.monotonic() + 10)
        assert await watch.finished(0)
    assert await producer.view("default", request.id) is None
    await deaf.stop()


async def test_a_reply_stream_that_vanished_is_made_again(
    producer: Producer, consumer: Consumer, redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(waiter_module, "BLOCK_MS", 50)
    monkeypatch.setattr(waiter_module, "SWEEP_S", 0.05)
    waiter = Waiter(producer)
    await waiter.start()
    name = KEYS.reply(producer.process)
    for loss in (redis_server.client.flushall, lambda: redis_server.client.delete(name)):
        await reached(
            lambda: redis_server.client.exists(name), description="the reply stream is there"
        )
        loss()
        consumer.prepare()
        request = submission(producer)
        with waiter.watching("default", request.id, request) as watch:
            await producer.submit(request)
            serve(consumer)
            assert await watch.finished(60)
    await reached(
        lambda: 0 < redis_server.client.ttl(name) <= producer.settings.reply_ttl_s,
        description="the reply stream is there, for a while",
    )
    await waiter.stop()


async def test_a_cursor_ahead_of_the_server_is_rewound(
    producer: Producer, redis_server: RedisServer
) -> None:
    waiter = Waiter(producer)
    redis_server.client.xadd(KEYS.reply(producer.process), {"made": ""}, id="5-1")
    assert await waiter._renew(KEYS, "9-0") == "0"
    assert await waiter._renew(KEYS, "5-0") == "5-0"
    await waiter.stop()


async def test_a_reply_stream_trimmed_past_its_cursor_loses_nobody(
    producer: Producer, consumer: Consumer, redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any],
) -> None:  # fmt: skip
    monkeypatch.setattr(waiter_module, "SWEEP_S", 0.05)
    monkeypatch.setattr(waiter_module, "QUIET_S", 0.1)
    waiter = Waiter(producer)
    request = submission(producer)
    with waiter.watching("default", request.id, request) as watch:
        await producer.submit(request)
        serve(consumer)
        redis_server.client.xtrim(KEYS.reply(producer.process), maxlen=0, approximate=False)
        await waiter.start()
        assert await watch.finished(60)
    await waiter.stop()


async def test_news_of_an_end_tell_its_outcomes_if_one_call_brought_them(
    producer: Producer, waiter: Waiter, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiter_module, "QUIET_S", 600.0)  # the sweep knows of no outcomes
    request = submission(producer, ["a", "b"])
    with waiter.watching("default", request.id, request) as watch:
        await producer.submit(request)
        assert not await watch.finished(0.01)
        assert watch.ending is None
        assert serve(consumer) == 2
        assert await watch.finished(60)
        assert watch.ending is not None
        view = await producer.view("default", request.id)
    assert view is not None
    assert (watch.ending.state, watch.ending.outcomes) == ("done", view[1])
    assert waiter.watches == {}


@pytest.mark.parametrize("text", ["x" * 5_000, "a"])
async def test_an_end_whose_outcomes_are_long_or_came_one_by_one_is_read(
    text: str, producer: Producer, waiter: Waiter, consumer: Consumer
) -> None:
    request = submission(producer, [text, "b"])
    with waiter.watching("default", request.id, request) as watch:
        await producer.submit(request)
        deliveries = consumer.read(8, 8, 0)
        consumer.begin(deliveries)
        done = answers(deliveries)
        for part in [done] if len(text) > 1 else [done[:1], done[1:]]:
            consumer.complete(part)
        assert await watch.finished(60)
        assert watch.ending is None


async def test_damaged_outcomes_in_news_are_not_believed(
    producer: Producer, waiter: Waiter, redis_server: RedisServer
) -> None:
    request = submission(producer, ["a"])
    with waiter.watching("default", request.id, request) as watch:
        news = {f"={request.id}": '{"0":', request.id: "0 done"}
        await producer.listen(KEYS)
        redis_server.client.xadd(KEYS.reply(producer.process), news)
        assert await watch.finished(60)
        assert watch.ending is None


async def test_news_that_were_read_are_dropped(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    """Outcomes are among them, which nobody keeps longer than their request."""
    waiter, stream = Waiter(producer), KEYS.reply(producer.process)
    await producer.listen(KEYS)
    await producer.submit(submission(producer, ["a"]))
    serve(consumer)
    entries = [entry.decode() for entry, _ in redis_server.client.xrange(stream)]
    assert len(entries) == 2  # one made the stream
    assert await waiter._renew(KEYS, entries[0]) == entries[0]
    assert [entry.decode() for entry, _ in redis_server.client.xrange(stream)] == entries[1:]
    await waiter._renew(KEYS, entries[1])
    assert redis_server.client.xlen(stream) == 0
    assert await waiter._renew(KEYS, entries[1]) == entries[1]  # no rewinding: the last id stays
    await waiter.stop()
