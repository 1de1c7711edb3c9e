"""Which submits are refused, with which wait, and which never are."""

import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from benchmarks import requests, stress
from broker.errors import Overloaded, TenantOverloaded, TooLate
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Submission
from tests.broker.parties import MODEL, answers, serve, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

LOAD = Keys("0").load()
RATE = 100  # characters a second
BATCH = 64  # records, while no worker has told


@pytest.fixture
async def capped(redis_server: RedisServer) -> AsyncIterator[Producer]:
    settings = settings_for(redis_server, max_outstanding_chars=1_000, max_tenant_chars=400)
    made = Producer(settings, "api-1")
    await made.prepare()
    yield made
    await made.close()


def measured(server: RedisServer, rate: float = RATE, full_ms: float = 60_000) -> None:
    """As if workers had been seen to drain so fast under full load."""
    server.client.hset(LOAD, mapping={f"rate:{MODEL}": rate, f"full:{MODEL}": full_ms})


def of(producer: Producer, tenant: str, chars: int, **changes: Any) -> Submission:
    return texts(producer, tenant, ["x" * chars], **changes)


def texts(producer: Producer, tenant: str, texts: Sequence[str], **changes: Any) -> Submission:
    values = {"lane": "bulk", "deadline_ms": 86_400_000} | changes
    return submission(producer, texts, tenant=tenant, **values)


async def test_a_tenant_above_its_cap_is_refused_and_others_are_not(
    capped: Producer, redis_server: RedisServer
) -> None:
    measured(redis_server)
    await capped.submit(of(capped, "a", 300))
    with pytest.raises(TenantOverloaded) as refused:
        await capped.submit(of(capped, "a", 200, lane="interactive"))  # lanes count together
    assert refused.value.estimated_wait_s == pytest.approx(200 / (RATE * 3 / 4))
    assert 0 < refused.value.room_s < refused.value.estimated_wait_s
    await capped.submit(of(capped, "b", 200))
    assert (await capped.load(MODEL)).outstanding_cost == 500


async def test_the_cap_that_comes_with_a_call_is_the_one_that_holds(capped: Producer) -> None:
    await capped.submit(of(capped, "a", 300))
    await capped.submit(of(capped, "a", 300, tenant_cap=600))
    with pytest.raises(TenantOverloaded):
        await capped.submit(of(capped, "a", 1, tenant_cap=600))
    with pytest.raises(TenantOverloaded):
        await capped.submit(of(capped, "a", 1))


async def test_above_the_cap_of_all_tenants_everybody_is_refused(
    capped: Producer, redis_server: RedisServer
) -> None:
    measured(redis_server)
    for tenant in ("a", "b", "c"):
        await capped.submit(of(capped, tenant, 320))
    with pytest.raises(Overloaded) as refused:
        await capped.submit(of(capped, "d", 140))
    assert type(refused.value) is Overloaded
    assert refused.value.room_s == pytest.approx(1.0)  # 960 + 140 are 100 too many


async def test_whoever_has_nothing_outstanding_may_send_one_request_of_any_size(
    capped: Producer,
) -> None:
    assert not (await capped.submit(of(capped, "a", 5_000))).duplicate


@pytest.mark.parametrize("changes", [{}, {"idempotency": "digest", "fingerprint": "body"}])
async def test_a_duplicate_is_known_before_anything_is_refused(
    capped: Producer, redis_server: RedisServer, changes: dict[str, str]
) -> None:
    request = of(capped, "a", 1_500, **changes)
    await capped.submit(request)
    measured(redis_server, rate=0.001)
    assert (await capped.submit(request)).duplicate
    if changes:
        again = of(capped, "a", 1_500, **changes)
        assert (await capped.submit(again)).id == request.id


async def test_accepted_work_is_queued_again_whatever_the_caps(
    capped: Producer, redis_server: RedisServer
) -> None:
    await capped.submit(of(capped, "a", 1_500))
    measured(redis_server, rate=0.001)
    assert not (await capped.submit(of(capped, "a", 1_500), refusable=False)).duplicate


# ── The wait and the deadline ────────────────────────────────────────────────────────────────


async def test_what_would_end_after_its_deadline_is_refused_with_the_wait(
    producer: Producer, redis_server: RedisServer
) -> None:
    measured(redis_server)
    await producer.submit(texts(producer, "a", ["x" * 10] * 100))
    with pytest.raises(TooLate) as refused:
        await producer.submit(of(producer, "a", 200, deadline_ms=22_900))
    wait_s = (1_000 + 200 + BATCH * 10) / RATE  # what is before it, itself, and a batch
    assert refused.value.estimated_wait_s == pytest.approx(wait_s)
    assert refused.value.room_s == pytest.approx(wait_s - 0.8 * 22.9)
    assert refused.value.deadline_s == 22.9
    receipt = await producer.submit(of(producer, "a", 200, deadline_ms=23_100))
    assert receipt.estimated_wait_s == pytest.approx(wait_s)


@pytest.mark.parametrize("full_ms", [None, 0, 900])
async def test_a_rate_that_is_unknown_or_was_not_seen_under_load_refuses_nobody(
    producer: Producer, redis_server: RedisServer, full_ms: int | None
) -> None:
    if full_ms is not None:
        measured(redis_server, full_ms=full_ms)
    await producer.submit(of(producer, "a", 10_000))
    receipt = await producer.submit(of(producer, "a", 10_000, deadline_ms=10))
    assert (receipt.estimated_wait_s is None) == (full_ms is None)


async def test_the_wait_is_the_callers_own_and_not_the_floods(
    producer: Producer, redis_server: RedisServer
) -> None:
    measured(redis_server)
    for _ in range(10):
        await producer.submit(texts(producer, "a", ["x" * 20] * 1000))
    mine = await producer.submit(of(producer, "b", 20, deadline_ms=60_000))
    assert mine.estimated_wait_s is not None
    # The window, which is a batch while no worker lives; its own; and a batch.
    assert mine.estimated_wait_s <= (2 * BATCH * 20 + 3 * 20) / RATE
    with pytest.raises(TooLate) as refused:
        await producer.submit(of(producer, "a", 20, deadline_ms=60_000))
    assert refused.value.estimated_wait_s == pytest.approx((200_040 + BATCH * 20) / RATE, rel=0.01)


async def test_a_request_that_waits_is_told_its_own_wait_and_not_the_floods(
    producer: Producer, redis_server: RedisServer
) -> None:
    measured(redis_server)
    flood = texts(producer, "a", ["x" * 20] * 1000)
    await producer.submit(flood)
    mine = of(producer, "b", 20)
    await producer.submit(mine)
    waits = {}
    for request in (flood, mine):
        found = await producer.view(request.tenant, request.id)
        assert found is not None
        waits[request.tenant] = found[0].estimated_wait_s or 0.0
    assert waits["a"] == pytest.approx((20_020 + BATCH * 20) / RATE)
    assert waits["b"] <= (2 * BATCH * 20 + 3 * 20) / RATE
    await producer.cancel("b", mine.id)
    found = await producer.view("b", mine.id)
    assert found is not None
    assert found[0].finished


async def test_the_defaults_never_refuse_the_stress_grid(
    producer: Producer, redis_server: RedisServer
) -> None:
    """At a fifth of the rate that was measured for its heaviest cell on a busy machine."""
    measured(redis_server, rate=250)
    sentences = itertools.cycle(requests.sentences())
    for _ in range(stress.NUM_REQ):
        some = list(itertools.islice(sentences, max(stress.PAY_SIZES)))
        request = texts(producer, "default", some, lane="interactive", deadline_ms=600_000)
        assert not (await producer.submit(request)).duplicate


async def test_weight_shortens_the_wait(producer: Producer, redis_server: RedisServer) -> None:
    measured(redis_server)
    await producer.submit(texts(producer, "a", ["x" * 10] * 1000))
    waits = {}
    for tenant, weight in (("light", 0.5), ("even", 1.0), ("heavy", 4.0)):
        request = texts(producer, tenant, ["x" * 10] * 200, weight=weight)
        receipt = await producer.submit(request)
        waits[tenant] = receipt.estimated_wait_s or 0.0
        await producer.cancel(tenant, request.id)
    assert waits["heavy"] < waits["even"] < waits["light"]


async def test_the_other_lane_costs_no_more_than_its_share(
    producer: Producer, redis_server: RedisServer
) -> None:
    measured(redis_server)
    await producer.submit(of(producer, "a", 100_000))
    one = await producer.submit(of(producer, "b", 100, lane="interactive"))
    assert one.estimated_wait_s == pytest.approx(100 / (RATE * 3 / 4))
    few = await producer.submit(of(producer, "b", 7_000, lane="interactive"))
    assert few.estimated_wait_s == pytest.approx((100 + 7_000 + 100 * BATCH) / (RATE * 3 / 4))
    bulk = await producer.submit(of(producer, "a", 1))
    assert bulk.estimated_wait_s == pytest.approx((100_000 + 1 + 7_100 + 107_100) / RATE)


async def test_tenants_are_served_by_weight(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    consumer = worker(broker_settings, 80)
    for tenant, weight in (("one", 1.0), ("three", 3.0)):
        await producer.submit(texts(producer, tenant, ["x" * 10] * 400, weight=weight))
    served = [delivery.record.tenant for delivery in consumer.read(0, 80, 0)]
    assert abs(served.count("three") - 60) <= 1  # the first was promoted before the other came
    consumer.close()


# ── The rate ─────────────────────────────────────────────────────────────────────────────────


async def test_light_load_does_not_make_the_rate_small(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    """What an almost idle worker completes says nothing of what it could."""
    consumer = worker(broker_settings)
    measured(redis_server, rate=1_000_000)
    for _ in range(20):
        await producer.submit(of(producer, "a", 1))
        redis_server.client.hset(LOAD, f"busy:{MODEL}", 600)  # it took its time
        serve(consumer)
    assert (await producer.load(MODEL)).drain_rate == 1_000_000
    consumer.close()


async def test_a_full_worker_that_is_slow_makes_the_rate_small(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    consumer = worker(broker_settings, 4)
    measured(redis_server, rate=1_000_000)
    await producer.submit(texts(producer, "a", ["x"] * 100))
    redis_server.client.hset(LOAD, f"busy:{MODEL}", 20_000)
    serve(consumer, 4)
    rate = (await producer.load(MODEL)).drain_rate
    assert rate is not None
    assert rate < 200_000
    consumer.close()


async def test_workers_that_hold_all_there_is_are_full_too(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    """What an engine holds ahead of a step waits as much as what nobody has read."""
    consumer = worker(broker_settings, 8)
    measured(redis_server, rate=1_000_000, full_ms=0)
    await producer.submit(texts(producer, "a", ["x"] * 8))
    deliveries = consumer.read(0, 8, 0)
    assert len(deliveries) == 8
    redis_server.client.hset(LOAD, f"busy:{MODEL}", 20_000)
    assert consumer.complete(answers(deliveries[:4])) == 4
    rate = (await producer.load(MODEL)).drain_rate
    assert rate is not None
    assert rate < 200_000
    assert float(redis_server.client.hget(LOAD, f"full:{MODEL}")) >= 20_000
    # With less than they can hold, the workers are full no more.
    redis_server.client.hset(LOAD, mapping={f"busy:{MODEL}": 60_000, f"full:{MODEL}": 0})
    assert consumer.complete(answers(deliveries[4:])) == 4
    assert (await producer.load(MODEL)).drain_rate == rate
    assert redis_server.client.hget(LOAD, f"full:{MODEL}") == b"0"
    consumer.close()


async def test_time_without_a_worker_does_not_make_the_rate_small(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    measured(redis_server, rate=1_000)
    await producer.submit(texts(producer, "a", ["x"] * 100))
    hours_ago = int(redis_server.client.time()[0]) * 1000 - 36_000_000
    redis_server.client.hset(LOAD, f"since:{MODEL}", hours_ago)
    consumer = worker(broker_settings, 4)  # the first one since
    redis_server.client.hset(LOAD, f"busy:{MODEL}", 600)
    serve(consumer, 4)
    rate = (await producer.load(MODEL)).drain_rate
    assert rate is not None
    assert rate > 1  # as after less than a second, or a few on a busy machine, and not hours
    consumer.close()


async def test_a_clock_that_is_set_back_does_not_stop_the_measuring(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    """As after a failover to a server whose clock is behind."""
    consumer = worker(broker_settings, 4)
    measured(redis_server, rate=1_000_000)
    await producer.submit(texts(producer, "a", ["x"] * 100))
    in_an_hour = int(redis_server.client.time()[0]) * 1000 + 3_600_000
    redis_server.client.hset(LOAD, f"since:{MODEL}", in_an_hour)
    serve(consumer, 4)
    redis_server.client.hincrbyfloat(LOAD, f"busy:{MODEL}", 20_000)
    serve(consumer, 4)
    rate = (await producer.load(MODEL)).drain_rate
    assert rate is not None
    assert rate < 200_000
    consumer.close()
