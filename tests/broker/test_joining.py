"""Identical requests in flight: ``submit`` with ``join``."""

from typing import Any

import pytest

from broker import producer as producer_module
from broker.consumer import Consumer
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from broker.wire import Submission
from tests.broker.parties import serve, submission
from tests.redis_server import RedisServer
from tests.waiting import reached

KEYS = Keys("0")
WORK = "digest-of-the-work"


def alike(producer: Producer, **changes: Any) -> Submission:
    return submission(producer, ["one", "two"], **({"join": WORK} | changes))


def fields(server: RedisServer, request_id: str, *names: str) -> list[bytes]:
    found: list[bytes] = server.client.hmget(KEYS.request("default", request_id), *names)
    return found


async def test_identical_requests_in_flight_are_queued_once(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    first = await producer.submit(alike(producer))
    for _ in range(3):
        receipt = await producer.submit(alike(producer))
        assert (receipt.id, receipt.joined, receipt.duplicate) == (first.id, True, False)
    assert (first.joined, fields(redis_server, first.id, "waiters")) == (False, [b"4"])
    assert serve(consumer) == 2
    assert (await producer.status("default", first.id)).state == "done"  # type: ignore[union-attr]


async def test_what_has_ended_is_not_joined_and_leaves_no_mark(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    await producer.submit(alike(producer))
    mark = KEYS.inflight("default", WORK)
    assert redis_server.client.pttl(mark) > 600_000
    serve(consumer)
    assert not redis_server.client.exists(mark)
    assert not (await producer.submit(alike(producer))).joined


async def test_other_work_and_other_tenants_are_not_joined(producer: Producer) -> None:
    await producer.submit(alike(producer))
    for changes in ({"tenant": "other"}, {"join": "other-work"}, {"join": ""}):
        assert not (await producer.submit(alike(producer, **changes))).joined


async def test_a_submit_that_is_repeated_does_not_join_itself(
    producer: Producer, redis_server: RedisServer
) -> None:
    request = alike(producer)
    await producer.submit(request)
    receipt = await producer.submit(request)
    assert (receipt.id, receipt.duplicate, receipt.joined) == (request.id, True, False)
    assert fields(redis_server, request.id, "waiters") == [b"1"]


@pytest.mark.parametrize("end", ["cancelled", "lost", "expired"])
async def test_a_mark_that_leads_nowhere_is_taken_over(
    producer: Producer, redis_server: RedisServer, end: str
) -> None:
    first = await producer.submit(alike(producer, deadline_ms=1 if end == "expired" else 600_000))
    if end == "cancelled":
        await producer.cancel("default", first.id)
    elif end == "lost":
        redis_server.client.delete(KEYS.request("default", first.id))
    else:
        redis_server.client.hset(KEYS.request("default", first.id), "deadline_ms", 1)
    second = await producer.submit(alike(producer))
    assert (second.joined, second.duplicate) == (False, False)
    assert redis_server.client.get(KEYS.inflight("default", WORK)).decode() == second.id
    assert (await producer.submit(alike(producer))).id == second.id


async def test_nobody_joins_what_was_given_up_for_its_deadline(
    producer: Producer, consumer: Consumer
) -> None:
    first = await producer.submit(alike(producer, deadline_ms=60_000))
    assert consumer.begin(consumer.read(8, 8, 0), 70.0) == ["expired"] * 2
    second = await producer.submit(alike(producer, deadline_ms=600_000))
    assert (second.joined, second.id == first.id) == (False, False)


async def test_the_end_of_a_request_leaves_the_mark_of_its_successor(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    await producer.submit(alike(producer))
    redis_server.client.set(KEYS.inflight("default", WORK), "f" * 34, px=60_000)
    assert serve(consumer) == 2
    assert redis_server.client.get(KEYS.inflight("default", WORK)) == b"f" * 34


async def test_the_most_patient_caller_decides_how_long_the_work_may_take(
    producer: Producer, redis_server: RedisServer
) -> None:
    first = await producer.submit(alike(producer, deadline_ms=60_000))
    (before,) = fields(redis_server, first.id, "deadline_ms")
    await producer.submit(alike(producer, deadline_ms=1_000))
    assert fields(redis_server, first.id, "deadline_ms") == [before]
    await producer.submit(alike(producer, deadline_ms=900_000))
    (after,) = fields(redis_server, first.id, "deadline_ms")
    assert int(after) >= int(before) + 800_000
    assert redis_server.client.pttl(KEYS.request("default", first.id)) > 900_000


async def test_the_work_is_dropped_when_the_last_caller_is_gone(
    producer: Producer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(producer_module, "ABANDON_S", 0.0)
    first = await producer.submit(alike(producer))
    await producer.submit(alike(producer))
    await producer.leave("default", first.id)
    assert not await producer._cancel("default", first.id, patience_ms=0)
    await producer.leave("default", first.id)
    mark = KEYS.inflight("default", WORK)
    await reached(
        lambda: fields(redis_server, first.id, "state") == [b"cancelled"],
        description="the work is dropped",
    )
    assert (await producer.submit(alike(producer))).id != first.id
    assert redis_server.client.get(mark).decode() != first.id


async def test_a_caller_that_joins_on_another_process_is_woken(
    producer: Producer, consumer: Consumer, waiter: Waiter, broker_settings: BrokerSettings
) -> None:
    first = await producer.submit(alike(producer))
    elsewhere = Producer(broker_settings, "api-2")
    listening = Waiter(elsewhere)
    await listening.start()
    try:
        with listening.watching("default", first.id) as watch:
            assert (await elsewhere.submit(alike(elsewhere))).id == first.id
            serve(consumer)
            assert await watch.finished(60)
    finally:
        await listening.stop()
        await elsewhere.close()
