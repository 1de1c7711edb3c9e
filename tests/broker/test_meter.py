"""Rate limits: what fits passes, what does not waits, over any number of processes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from broker.errors import BrokerUnavailable
from broker.keys import rate, shard_keys
from broker.meter import MINUTE_MS, Amounts, Charge, Meter
from broker.settings import BrokerSettings
from broker.tenants import Quota, Tenants, key_id
from tests.redis_server import RedisServer, closed_port

SLOW_MS = 1_000_000_000  # a period so long that nothing is paid back within a test


@pytest.fixture
async def meter(broker_settings: BrokerSettings) -> AsyncIterator[Meter]:
    made = Meter(broker_settings)
    yield made
    await made.close()


def calls(amount: float = 1, allowed: float = 3, period_ms: int = SLOW_MS) -> Charge:
    return Charge("requests_per_s", amount, allowed, period_ms)


def text(amount: float, allowed: float = 100, period_ms: int = SLOW_MS) -> Charge:
    return Charge("chars_per_minute", amount, allowed, period_ms)


async def test_so_many_pass_and_the_next_is_told_how_long(
    meter: Meter, redis_server: RedisServer
) -> None:
    assert [await meter.charge("acme", [calls()]) for _ in range(3)] == [None] * 3
    refusal = await meter.charge("acme", [calls()])
    assert refusal is not None
    assert refusal.charge == calls()
    assert refusal.wait_s == pytest.approx(SLOW_MS / 3000, rel=0.01)
    assert await meter.charge("other", [calls()]) is None
    key = rate("acme", "requests_per_s")
    assert 0 < redis_server.client.pttl(key) <= SLOW_MS


async def test_what_was_taken_is_paid_back(meter: Meter, redis_server: RedisServer) -> None:
    large, small = calls(2, 1), calls(1, 1)
    assert await meter.charge("acme", [large]) is None
    refusal = await meter.charge("acme", [small])
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(2 * SLOW_MS / 1000, rel=0.01)
    key = rate("acme", "requests_per_s")

    def go_by(seconds: float) -> None:
        """As if so much time had passed for the limit."""
        due_ms = float(redis_server.client.get(key))
        redis_server.client.set(key, f"{due_ms - seconds * 1000:.3f}", px=60_000)

    go_by(refusal.wait_s * 0.9)
    assert await meter.charge("acme", [small]) is not None
    go_by(refusal.wait_s * 0.1)  # what a caller is told to wait, in all
    assert await meter.charge("acme", [small]) is None
    assert SLOW_MS * 0.9 < redis_server.client.pttl(key) <= SLOW_MS + 1


async def test_the_limit_holds_over_all_processes(
    meter: Meter, broker_settings: BrokerSettings
) -> None:
    second = Meter(broker_settings)
    answers = await asyncio.gather(
        *(m.charge("acme", [calls(allowed=10)]) for m in (meter, second) for _ in range(20))
    )
    await second.close()
    assert answers.count(None) == 10


async def test_more_than_a_whole_period_passes_once_and_is_owed(meter: Meter) -> None:
    assert await meter.charge("acme", [text(250)]) is None
    refusal = await meter.charge("acme", [text(1)])
    assert refusal is not None
    assert refusal.wait_s == pytest.approx(SLOW_MS / 1000 * 1.51, rel=0.01)


async def test_all_charges_are_taken_or_none(meter: Meter) -> None:
    assert await meter.charge("acme", [calls(allowed=5), text(100)]) is None
    refusal = await meter.charge("acme", [calls(allowed=5), text(1)])
    assert refusal is not None
    assert refusal.charge.limit == "chars_per_minute"
    assert [await meter.charge("acme", [calls(allowed=5)]) for _ in range(4)] == [None] * 4
    assert await meter.charge("acme", [calls(allowed=5)]) is not None
    assert await meter.charge("acme", []) is None


async def test_limits_hold_while_memory_is_full(meter: Meter, redis_server: RedisServer) -> None:
    assert await meter.charge("acme", [calls()]) is None
    redis_server.client.config_set("maxmemory", "1mb")
    try:
        assert await meter.charge("acme", [calls()]) is None
    finally:
        redis_server.client.config_set("maxmemory", "0")


async def test_keys_and_quotas_as_the_operator_left_them(
    meter: Meter, broker_settings: BrokerSettings
) -> None:
    with Tenants(broker_settings) as tenants:
        identity = key_id(tenants.create(b"s" * 40, "acme"))
        assert identity is not None
        entry = await meter.key(identity)
        assert entry is not None
        assert entry.tenant == "acme"
        assert await meter.key("0" * 12) is None
        assert await meter.quota("acme") == Quota()
        tenants.set_quota("acme", Quota(weight=2))
        assert await meter.quota("acme") == Quota(weight=2)


async def test_redis_away_is_said() -> None:
    meter = Meter(BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0"))
    for call in (meter.key("0" * 12), meter.quota("a"), meter.charge("a", [text(1, 1, MINUTE_MS)])):
        with pytest.raises(BrokerUnavailable):
            await call
    await meter.close()


async def test_a_month_is_the_sum_of_its_days(
    meter: Meter, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    key = shard_keys(1)[0].usage("acme", "2026-02")
    for day, characters in (("01", 5), ("27", 7), ("28", 9)):
        redis_server.client.hset(
            key,
            mapping={f"{day}:requests": 1, f"{day}:records": 2, f"{day}:characters": characters},
        )
    redis_server.client.expire(key, 60)
    usage = await meter.usage("acme", "small", datetime(2026, 2, 28, tzinfo=UTC))
    assert usage.today == Amounts(1, 2, 9)
    assert usage.month == Amounts(3, 6, 21)
    empty = await meter.usage("acme", "small", datetime(2026, 3, 1, tzinfo=UTC))
    assert empty.month == Amounts(0, 0, 0)
