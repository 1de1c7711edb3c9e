"""Leases that end, records that are reclaimed or handed back, and workers that leave."""

import multiprocessing

from broker.consumer import Consumer
from broker.keys import GROUP, Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Delivery
from tests.broker.parties import MODEL, answers, pending, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

KEYS = Keys("0")


def expire_leases(consumer: Consumer, deliveries: list[Delivery]) -> None:
    """As if the consumer had been silent for longer than a lease."""
    for delivery in deliveries:
        consumer._client.xclaim(
            delivery.stream, GROUP, consumer.worker, 0, [delivery.entry], idle=60_000, justid=True
        )


async def test_a_lease_that_is_renewed_is_not_reclaimed(
    producer: Producer, consumer: Consumer, broker_settings: BrokerSettings
) -> None:
    other = worker(broker_settings)
    await producer.submit(submission(producer, ["a", "b"]))
    deliveries = consumer.read(8, 8, 0)
    expire_leases(consumer, deliveries)
    assert consumer.renew(deliveries) == {d.place for d in deliveries}
    assert other.reclaim(8) == []
    expire_leases(consumer, deliveries[:1])
    taken = other.reclaim(8)
    assert [d.attempts for d in taken] == [2]
    assert consumer.renew(deliveries) == {deliveries[1].place}  # a bare XCLAIM would steal it back
    other.close()


async def test_suspects_come_in_small_groups_then_alone(
    producer: Producer, consumer: Consumer
) -> None:
    await producer.submit(submission(producer, [str(i) for i in range(20)], lane="bulk"))
    deliveries = consumer.read(0, 20, 0)
    expire_leases(consumer, deliveries)
    suspects = consumer.reclaim(20)
    assert [d.attempts for d in suspects] == [2] * 8
    expire_leases(consumer, suspects)
    assert [d.attempts for d in consumer.reclaim(20)] == [2] * 8  # the untried ones go first
    assert [d.attempts for d in consumer.reclaim(20)] == [2] * 4
    alone = consumer.reclaim(20)
    assert [d.attempts for d in alone] == [3]
    expire_leases(consumer, alone)
    rest = [consumer.reclaim(20) for _ in range(9)]
    assert [[d.attempts for d in group] for group in rest] == [[3]] * 7 + [[4], []]


async def test_dead_entries_behind_fresh_ones_are_found(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    busy, dead, heir = (worker(broker_settings, 60) for _ in range(3))
    await producer.submit(submission(producer, ["fresh"] * 60, lane="bulk"))
    busy.read(0, 60, 0)
    await producer.submit(submission(producer, ["dead"] * 40, lane="bulk"))
    lost = dead.read(0, 40, 0)
    expire_leases(dead, lost)
    found = sum(len(heir.reclaim(64)) for _ in range(5))
    assert found == 40
    for consumer in (busy, dead, heir):
        consumer.close()


async def test_two_workers_reclaim_at_once(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    settings = settings_for(redis_server, lease_s=30)
    await producer.submit(submission(producer, [str(i) for i in range(64)], lane="bulk"))
    expire_leases(consumer, consumer.read(0, 64, 0))
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        claims = pool.map(reclaim_all, [settings] * 2)
    entries = [entry for claim in claims for entry in claim]
    assert len(entries) == len(set(entries)) == 64


def reclaim_all(settings: BrokerSettings) -> list[str]:
    heir = Consumer(settings, MODEL)
    entries: list[str] = []
    while claimed := heir.reclaim(64):
        entries += [d.entry for d in claimed]
    heir.close()
    return entries


async def test_handed_back_records_are_fresh_and_claimable_at_once(
    producer: Producer, consumer: Consumer, broker_settings: BrokerSettings
) -> None:
    heir = worker(broker_settings)
    await producer.submit(submission(producer, ["a", "b", "c"]))
    deliveries = consumer.read(8, 8, 0)
    consumer.hand_back(deliveries[1:])
    consumer.retire()
    claimed = heir.reclaim(8)
    assert [(d.record.text, d.attempts) for d in claimed] == [("b", 1), ("c", 1)]
    assert consumer.complete(answers(deliveries[:1])) == 1  # retiring dropped nothing
    heir.close()


async def test_a_retired_worker_leaves_no_consumer_and_keeps_pending_ones(
    producer: Producer, consumer: Consumer, broker_settings: BrokerSettings,
    redis_server: RedisServer,
) -> None:  # fmt: skip
    idle = worker(broker_settings)
    await producer.submit(submission(producer, ["a"]))
    assert idle.read(8, 8, 0)
    consumer.read(8, 8, 0)
    consumer.retire()
    idle.retire()
    names = _consumers(redis_server)
    assert idle.worker in names
    assert consumer.worker not in names
    assert pending(redis_server) == 1
    assert await producer.workers(MODEL) == []
    idle.close()


def _consumers(server: RedisServer) -> list[str]:
    stream = KEYS.queue(MODEL, "interactive")
    return [c["name"].decode() for c in server.client.xinfo_consumers(stream, GROUP)]
