"""What the protocol survives: lost replies, crashed servers, crashed workers."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from broker.consumer import Consumer
from broker.errors import BrokerUnavailable
from broker.keys import GROUP, Keys
from broker.producer import Producer
from broker.waiter import Waiter
from broker.wire import LANES, Completion, Outcome
from tests.broker.parties import MODEL, answers, beat, serve, submission, worker
from tests.broker.proxy import LossyProxy
from tests.conftest import settings_for
from tests.redis_server import RedisServer
from tests.waiting import reached

KEYS = Keys("0")


async def test_a_lost_submit_reply_enqueues_once(redis_server: RedisServer) -> None:
    proxy = await LossyProxy(redis_server.port).start()
    producer = Producer(settings_for(redis_server, redis_url=proxy.url), "api-1")
    await producer.prepare()
    await producer.ready()
    request = submission(producer, ["once"])
    proxy.armed = True
    receipt = await producer.submit(request)
    assert proxy.lost == 1
    assert receipt.duplicate  # the second try found what the first had queued
    assert redis_server.client.xlen(KEYS.queue(MODEL, "interactive")) == 1
    await producer.close()
    await proxy.stop()


async def test_a_lost_complete_reply_completes_once(redis_server: RedisServer) -> None:
    proxy = await LossyProxy(redis_server.port).start()
    producer = Producer(settings_for(redis_server), "api-1")
    await producer.prepare()
    consumer = await asyncio.to_thread(worker, settings_for(redis_server, redis_url=proxy.url))
    request = submission(producer, ["a", "b"])
    await producer.submit(request)
    deliveries = await asyncio.to_thread(consumer.read, 8, 8, 0)
    proxy.armed = True
    await asyncio.to_thread(consumer.complete, answers(deliveries))
    assert proxy.lost == 1
    view = await producer.view("default", request.id)
    assert view is not None
    assert (view[0].done, view[0].state) == (2, "done")
    assert (await producer.load(MODEL)).outstanding_cost == 0
    await producer.close()
    consumer.close()
    await proxy.stop()


async def test_records_whose_read_was_cut_off_come_with_the_next_one(
    redis_server: RedisServer,
) -> None:
    """They are the worker's by then: nobody else would get them before its lease ran out, and then
    as suspects."""
    proxy = await LossyProxy(redis_server.port).start()
    producer = Producer(settings_for(redis_server), "api-1")
    await producer.prepare()
    settings = settings_for(redis_server, redis_url=proxy.url, lease_s=60)
    consumer = await asyncio.to_thread(worker, settings)
    for lane in LANES:
        await producer.submit(submission(producer, ["a", "b"], lane=lane))
    proxy.armed = True
    with pytest.raises(BrokerUnavailable):
        await asyncio.to_thread(consumer.read, 8, 8, 0)
    assert proxy.lost == 1
    await producer.submit(submission(producer, ["c"]))
    deliveries = await asyncio.to_thread(consumer.read, 8, 8, 0)
    assert sorted(d.record.text for d in deliveries) == ["a", "a", "b", "b", "c"]
    assert {d.attempts for d in deliveries} == {1}
    assert await asyncio.to_thread(consumer.read, 8, 8, 0) == []
    assert await asyncio.to_thread(consumer.complete, answers(deliveries)) == 5
    assert (await producer.load(MODEL)).outstanding_cost == 0
    await producer.close()
    consumer.close()
    await proxy.stop()


async def test_a_frozen_worker_that_thaws_after_its_lease_adds_nothing(
    producer: Producer, redis_server: RedisServer, wait_until: Callable[..., Any]
) -> None:
    request = submission(producer, ["slow"])
    await producer.submit(request)
    settings = settings_for(redis_server, lease_s=0.4)
    frozen = subprocess.Popen(
        [sys.executable, "-c", HOLDING_WORKER, redis_server.url], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert frozen.stdout is not None
    assert frozen.stdin is not None
    assert frozen.stdout.readline() == "holding\n"
    frozen.send_signal(signal.SIGSTOP)
    heir = worker(settings)
    claimed = wait_until(lambda: heir.reclaim(8), description="the lease runs out")
    assert heir.complete([Completion(d, Outcome(text="heir")) for d in claimed]) == 1
    frozen.send_signal(signal.SIGCONT)
    frozen.stdin.write("complete\n")
    frozen.stdin.close()
    assert frozen.stdout.readline() == "0\n"
    assert frozen.wait(60) == 0
    frozen.stdout.close()
    view = await producer.view("default", request.id)
    assert view is not None
    assert view[1][0].text == "heir"
    heir.close()


# Reads what there is, says so, and completes it when a line arrives.
HOLDING_WORKER = """
import sys
from broker.leases import Leases
from broker.settings import BrokerSettings
from tests.broker.parties import answers, worker
consumer = worker(BrokerSettings(redis_url=sys.argv[1], lease_s=0.4))
deliveries = consumer.read(8, 8, 0)
leases = Leases(consumer, 60, sys.exit)
leases.start()
leases.hold(deliveries)
print("holding", flush=True)
sys.stdin.readline()
print(consumer.complete(answers(deliveries)), flush=True)
leases.stop()
"""


async def patiently(call: Callable[..., Any], *arguments: Any) -> Any:
    """A caller that tries again while Redis is away."""

    async def answered() -> tuple[Any, ...]:
        try:
            return (await call(*arguments),)
        except BrokerUnavailable:
            return ()

    (answer,) = await reached(answered, description="Redis is back")
    return answer


async def test_a_killed_server_with_aof_loses_nothing_under_load(
    aof_server: RedisServer,
) -> None:
    # everysec holds writes back while an fsync is under way, so that even a killed server may lose
    # what it has answered; what has been read since is not submitted again.
    aof_server.client.config_set("appendfsync", "always")
    settings = settings_for(aof_server, lease_s=1.0)
    producer = Producer(settings, "api-1")
    await producer.prepare()
    waiter = Waiter(producer)
    await waiter.start()
    stop = threading.Event()
    served = [0]

    def work() -> None:
        consumer = worker(settings)
        while not stop.is_set():
            try:
                claimed = consumer.reclaim(64)
                consumer.complete(answers(claimed))
                served[0] += serve(consumer)
            except BrokerUnavailable:
                stop.wait(0.02)
        consumer.close()

    async def one(number: int) -> str | None:
        request = submission(producer, [f"text {number}"])
        with waiter.watching("default", request.id, request) as watch:
            await patiently(producer.submit, request)
            assert await watch.finished(60)
        view = await patiently(producer.view, "default", request.id)
        return view[1][0].text if view else None

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    batches = []
    for start in range(0, 1500, 500):
        batches.append(asyncio.gather(*(one(n) for n in range(start, start + 500))))
        before = served[0]
        await reached(
            lambda before=before: served[0] >= before + 100, description="100 more are served"
        )
        await asyncio.to_thread(aof_server.kill)
        await asyncio.to_thread(aof_server.start)
        aof_server.client.config_set("appendfsync", "always")
    texts = [text for batch in batches for text in await batch]
    stop.set()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert texts == [f"text {n}"[::-1] for n in range(1500)]
    await waiter.stop()
    await producer.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_workers_that_die_at_random_lose_nothing(
    producer: Producer, redis_server: RedisServer, seed: int
) -> None:
    """A worker that dies is one that stops calling: its consumers are simply dropped here."""
    chance = random.Random(seed)
    settings = settings_for(redis_server, lease_s=0.02)
    requests = [submission(producer, [f"{n} {i}" for i in range(10)]) for n in range(30)]
    for request in requests:
        await producer.submit(request)
    consumers = [worker(settings, 16) for _ in range(3)]
    unfinished = {request.id for request in requests}
    while unfinished:
        place = chance.randrange(3)
        consumer = consumers[place]
        held = consumer.reclaim(16) or consumer.read(16, 16, 0)
        if chance.random() < 0.1:
            consumer.close()
            consumers[place] = worker(settings, 16)
            continue
        consumer.complete(answers(held[: chance.randrange(len(held) + 1)]))
        consumer.hand_back(held)
        beat(consumer, 16)
        statuses = [await producer.status("default", id) for id in unfinished]
        unfinished -= {s.id for s in statuses if s is not None and s.finished}
    for request in requests:
        view = await producer.view("default", request.id)
        assert view is not None
        assert [view[1][i].text for i in range(10)] == [text[::-1] for text in request.texts]
    assert (await producer.load(MODEL)).outstanding_cost == 0
    assert redis_server.client.xpending(KEYS.queue(MODEL, "interactive"), GROUP)["pending"] == 0
    for consumer in consumers:
        consumer.close()


async def test_three_shards_are_served_by_one_consumer(
    redis_server: RedisServer,
) -> None:
    settings = settings_for(redis_server, shards=3)
    producer = Producer(settings, "api-1")
    await producer.prepare()
    waiter = Waiter(producer)
    await waiter.start()
    consumer = Consumer(settings, MODEL)
    consumer.prepare()
    beat(consumer)
    requests = [submission(producer, [str(n)]) for n in range(60)]
    assert {request.id[-2:] for request in requests} == {"00", "01", "02"}
    for request in requests:
        await producer.submit(request)
    load = await producer.load(MODEL)
    assert load.ready + load.backlog == 60
    watches = [waiter.watching("default", request.id, request) for request in requests]
    for watch in watches:
        watch.__enter__()
    while serve(consumer, 7):
        pass
    assert all([await watch.finished(60) for watch in watches])
    for watch in watches:
        watch.__exit__(None, None, None)
    assert (await producer.load(MODEL)).outstanding_cost == 0
    consumer.close()
    await waiter.stop()
    await producer.close()
