"""Tests of ``broker.reader``: what is read, in which order, and what the server may have lost."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from broker.consumer import Consumer
from broker.errors import BrokerMisconfigured, BrokerUnavailable
from broker.keys import GROUP, Keys, new_request_id, shard_keys, shard_of
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Delivery, ModelEntry
from tests.broker.parties import MODEL, answers, pending, serve, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

KEYS = Keys("0")


async def test_rooms_bound_each_lane_and_interactive_comes_first(
    producer: Producer, consumer: Consumer
) -> None:
    await producer.submit(submission(producer, ["b"] * 10, lane="bulk"))
    await producer.submit(submission(producer, ["i"] * 10))
    lanes = [d.record.lane for d in consumer.read(3, 5, 0)]
    assert lanes == ["interactive"] * 3 + ["bulk"] * 5
    assert [d.record.lane for d in consumer.read(0, 2, 0)] == ["bulk"] * 2
    assert consumer.read(0, 0, 0) == []


def test_reading_nothing_waits_and_returns(consumer: Consumer) -> None:
    assert consumer.read(1, 1, 20) == []


async def test_a_blocked_read_outlives_the_redis_timeout(
    consumer: Consumer, redis_server: RedisServer, wait_until: Callable[..., Any]
) -> None:
    hasty = Consumer(settings_for(redis_server, redis_timeout_s=0.05), MODEL)

    def in_peace() -> bool:
        """What comes before the blocking read may take too long on a busy machine."""
        try:
            return hasty.read(1, 1, 300) == []  # six time-outs long
        except BrokerUnavailable:
            return False

    wait_until(in_peace, description="a blocking read ends without an error")
    hasty.close()


async def test_a_group_made_late_serves_what_came_before(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    await producer.submit(submission(producer, ["early"]))
    consumer = worker(broker_settings)
    assert serve(consumer) == 1
    consumer.close()


async def test_a_flushed_server_gets_its_groups_and_functions_back(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    entry = ModelEntry(MODEL, "r1", ["en", "ja"], 128)
    consumer.announce(entry)
    redis_server.client.flushall()
    redis_server.client.function_flush()
    await producer.submit(submission(producer, ["after"]))
    assert consumer.read(8, 8, 0) == []  # makes the groups
    assert await producer.model(MODEL) == entry
    assert serve(consumer) == 1


async def test_one_lane_without_its_group_keeps_nothing_from_the_other(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    await producer.submit(submission(producer, ["one"]))
    await producer.submit(submission(producer, ["two"], lane="bulk"))
    redis_server.client.xgroup_destroy(KEYS.queue(MODEL, "bulk"), GROUP)
    assert [d.record.text for d in consumer.read(8, 8, 0)] == ["one"]
    assert consumer.read(8, 8, 0) == []  # makes the group
    assert [d.record.text for d in consumer.read(8, 8, 0)] == ["two"]


async def test_a_shard_that_fails_keeps_nothing_from_the_others(
    redis_server: RedisServer,
) -> None:
    settings = settings_for(redis_server, shards=2)
    producer, consumer = Producer(settings, "api-1"), worker(settings)
    broken, sound = shard_keys(2)
    name = broken.queue(MODEL, "interactive")
    redis_server.client.delete(name)
    redis_server.client.set(name, "no stream")
    request = submission(producer, ["a"])
    await producer.submit(msgspec.structs.replace(request, id=new_request_id(1)))
    deliveries = consumer.read(8, 8, 0)  # the sound one comes first
    assert [d.stream for d in deliveries] == [sound.queue(MODEL, "interactive")]
    with pytest.raises(BrokerMisconfigured, match="WRONGTYPE"):
        consumer.read(8, 8, 0)
    await producer.close()
    consumer.close()


async def test_a_flood_of_one_shard_starves_no_other(redis_server: RedisServer) -> None:
    settings = settings_for(redis_server, shards=2)
    producer, consumer = Producer(settings, "api-1"), worker(settings)
    for shard in (0, 0, 0, 1):
        request = submission(producer, ["a", "b", "c"])
        await producer.submit(msgspec.structs.replace(request, id=new_request_id(shard)))
    read = [consumer.read(1, 1, 0) for _ in range(4)]
    shards = [shard_of(d.record.request, 2) for deliveries in read for d in deliveries]
    assert sorted(map(str, shards)) == ["0", "0", "1", "1"]
    await producer.close()
    consumer.close()


async def test_functions_lost_while_reading_are_loaded_again(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    await producer.submit(submission(producer, ["one", "two", "three"]))
    redis_server.client.function_flush()
    texts: list[str] = []
    while len(texts) < 3:  # first what the window held
        texts += [d.record.text for d in consumer.read(8, 8, 100)]
    assert texts == ["one", "two", "three"]


@pytest.mark.parametrize("fields", [{"record": b'{"request":1}'}, {"record": b"\xff{"}, {"x": b""}])
async def test_what_is_no_record_ends_no_worker(
    producer: Producer,
    consumer: Consumer,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, bytes],
) -> None:
    stream = KEYS.queue(MODEL, "interactive")
    consumer.read(1, 1, 20)
    redis_server.client.xadd(stream, fields)
    await producer.submit(submission(producer, ["one"]))
    deliveries: list[Delivery] = []
    while not deliveries:
        deliveries = consumer.read(8, 8, 100)
    assert [d.record.text for d in deliveries] == ["one"]
    assert "is no record and was dropped" in caplog.text
    assert pending(redis_server) == 1
    consumer.complete(answers(deliveries))
    assert redis_server.client.xlen(stream) == 0
