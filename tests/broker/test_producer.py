import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from broker import producer as producer_module
from broker.connection import connect
from broker.consumer import Consumer
from broker.errors import BrokerUnavailable, IdempotencyConflict
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from tests.broker.parties import MODEL, answers, beat, serve, submission, worker
from tests.redis_server import RedisServer, closed_port
from tests.waiting import reached

KEYS = Keys("0")


def queued(server: RedisServer, lane: str = "interactive") -> tuple[int, int]:
    """Entries in the ready window and records behind it."""
    window = server.client.xlen(KEYS.queue(MODEL, lane))
    return window, server.client.zcard(KEYS.backlog(MODEL, lane))


async def test_a_request_is_queued_whole_and_described(
    producer: Producer, redis_server: RedisServer
) -> None:
    request = submission(producer, ["one", "two", ""], ids=["a", 7, "a"])
    receipt = await producer.submit(request)
    assert (receipt.id, receipt.duplicate, receipt.outstanding_cost) == (request.id, False, 7)
    status = await producer.status("default", request.id)
    assert status is not None
    assert (status.state, status.total, status.done, status.ids) == ("queued", 3, 0, ["a", 7, "a"])
    assert status.deadline_ms - status.created_ms == 600_000
    assert queued(redis_server) == (3, 0)


async def test_a_submit_that_is_repeated_is_queued_once(
    producer: Producer, redis_server: RedisServer
) -> None:
    request = submission(producer, ["one"])
    await producer.submit(request)
    assert (await producer.submit(request)).duplicate
    assert queued(redis_server) == (1, 0)


async def test_an_idempotency_key_names_one_request(producer: Producer) -> None:
    first = submission(producer, idempotency="digest", fingerprint="body")
    again = submission(producer, idempotency="digest", fingerprint="body")
    other = submission(producer, idempotency="digest", fingerprint="another body")
    await producer.submit(first)
    assert (await producer.submit(again)).id == first.id
    with pytest.raises(IdempotencyConflict):
        await producer.submit(other)


async def test_the_idempotency_key_lives_as_long_as_its_request(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    request = submission(producer, idempotency="digest", fingerprint="body", deadline_ms=86_400_000)
    await producer.submit(request)
    names = [KEYS.request("default", request.id), KEYS.idempotency("default", "digest")]
    assert all(redis_server.client.ttl(name) > 86_400 for name in names)
    assert serve(consumer) == 1
    assert all(3_500 < redis_server.client.ttl(name) <= 3_600 for name in names)


async def test_out_of_memory_refuses_submits_and_lets_accepted_work_finish(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    accepted = submission(producer)
    await producer.submit(accepted)
    redis_server.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerUnavailable, match="cannot serve just now"):
            await producer.submit(submission(producer))
        assert serve(consumer) == 1
    finally:
        redis_server.client.config_set("maxmemory", "0")
    status = await producer.status("default", accepted.id)
    assert status is not None
    assert status.state == "done"


async def test_redis_away_is_told() -> None:
    settings = BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0")
    producer = Producer(settings, "api-1")
    with pytest.raises(BrokerUnavailable):
        await producer.submit(submission(producer))
    await producer.close()


async def test_a_server_that_hangs_up_is_tried_once_more_and_no_longer() -> None:
    """And not as often as redis-py would, which holds a caller for seconds."""
    connections = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    rude = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = rude.sockets[0].getsockname()[1]
    producer = Producer(BrokerSettings(redis_url=f"redis://127.0.0.1:{port}/0"), "api-1")
    with pytest.raises(BrokerUnavailable):
        await producer.submit(submission(producer))
    await producer.close()
    rude.close()
    await rude.wait_closed()
    assert connections == 2


async def test_a_server_that_accepts_and_never_answers_is_unavailable() -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(ignore, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    settings = BrokerSettings(redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout_s=0.2)
    producer = Producer(settings, "api-1")
    with pytest.raises(BrokerUnavailable):
        await producer.submit(submission(producer))
    await producer.close()
    silent.close()
    await silent.wait_closed()


async def test_functions_that_were_flushed_are_loaded_again(
    producer: Producer, redis_server: RedisServer
) -> None:
    redis_server.client.function_flush()
    await producer.submit(submission(producer))
    assert queued(redis_server) == (1, 0)


async def test_unknown_malformed_and_foreign_ids_are_alike(producer: Producer) -> None:
    request = submission(producer)
    await producer.submit(request)
    for tenant, request_id in [
        ("default", producer.new_request_id()),
        ("default", "nonsense"),
        ("other", request.id),
    ]:
        assert await producer.status(tenant, request_id) is None
        assert await producer.watch(tenant, request_id) is None
        assert await producer.view(tenant, request_id) is None
        assert await producer.cancel(tenant, request_id) is None
        assert await producer.outcomes(tenant, request_id, [0]) == {}


# ── The ready window and fairness ────────────────────────────────────────────────────────────


async def test_the_window_wakes_each_live_worker_and_a_read_takes_what_it_asks_for(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    first, second = worker(broker_settings, 8), worker(broker_settings, 8)
    await producer.submit(submission(producer, ["x"] * 100, lane="bulk"))
    assert queued(redis_server, "bulk") == (2, 98)
    taken = first.read(0, 8, 0)
    assert len(taken) == 8
    assert queued(redis_server, "bulk") == (10, 90)  # 8 taken, 2 ready
    first.complete(answers(taken))
    assert queued(redis_server, "bulk") == (2, 90)
    second.retire()
    beat(first, 8)
    assert len(first.read(0, 100, 0)) == 92
    assert queued(redis_server, "bulk") == (92, 0)
    first.close()
    second.close()


async def test_a_worker_that_waits_is_woken_and_takes_all_it_has_room_for(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    consumer = worker(broker_settings, 8)
    waiting = asyncio.ensure_future(asyncio.to_thread(consumer.read, 8, 8, 60_000))
    await reached(
        lambda: asyncio.to_thread(blocked, broker_settings), description="the worker waits"
    )
    await producer.submit(submission(producer, ["x"] * 30, lane="bulk"))
    assert len(await waiting) == 8
    consumer.close()


def blocked(settings: BrokerSettings) -> int:
    """Clients that wait in a blocking read."""
    with closing(connect(settings)) as client:
        return int(client.info("clients")["blocked_clients"])


async def test_a_tenant_behind_50000_records_of_another_waits_about_a_batch(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    consumer = worker(broker_settings, 64)
    for _ in range(50):
        await producer.submit(submission(producer, ["x" * 20] * 1000, tenant="a", lane="bulk"))
    mine = submission(producer, ["y" * 20], tenant="b", lane="bulk")
    await producer.submit(mine)
    batches = 0
    while True:
        batches += 1
        deliveries = consumer.read(0, 64, 0)
        assert len(deliveries) == 64
        consumer.complete(answers(deliveries))
        if any(d.record.tenant == "b" for d in deliveries):
            break
    assert batches == 1  # whatever stands before it, the next read takes it
    consumer.close()


async def test_tenants_share_by_cost_not_by_records(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    consumer = worker(broker_settings, 60)
    await producer.submit(submission(producer, ["x" * 100] * 60, tenant="long", lane="bulk"))
    await producer.submit(submission(producer, ["x" * 10] * 600, tenant="short", lane="bulk"))
    served = [d.record for d in consumer.read(0, 60, 0)]
    characters = {
        tenant: sum(record.cost for record in served if record.tenant == tenant)
        for tenant in ("long", "short")
    }
    assert abs(characters["long"] - characters["short"]) <= 100
    consumer.close()


# ── Cancelling and leaving ───────────────────────────────────────────────────────────────────


async def test_cancel_empties_the_backlog_and_leaves_the_window_to_its_worker(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    other = submission(producer, ["z"] * 5, lane="bulk", tenant="other")
    doomed = submission(producer, ["x"] * 100 + ["y"] * 100, lane="bulk")
    await producer.submit(doomed)
    await producer.submit(other)
    status = await producer.cancel("default", doomed.id)
    assert status is not None
    assert status.state == "cancelled"
    deliveries = consumer.read(64, 64, 0)
    verdicts = consumer.begin(deliveries)
    assert (verdicts.count("cancelled"), verdicts.count("go")) == (1, 5)
    consumer.discard(deliveries)
    while serve(consumer):
        pass
    assert queued(redis_server, "bulk") == (0, 0)
    load = await producer.load(MODEL)
    assert (load.outstanding_cost, load.cost_by_lane["bulk"]) == (0, 0)
    finished = await producer.status("other", other.id)
    assert finished is not None
    assert finished.state in ("done", "running")


async def test_a_result_that_comes_after_the_cancel_changes_nothing(
    producer: Producer, consumer: Consumer
) -> None:
    request = submission(producer)
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    consumer.begin(deliveries)
    await producer.cancel("default", request.id)
    consumer.complete(answers(deliveries))
    view = await producer.view("default", request.id)
    assert view is not None
    assert (view[0].state, view[1]) == ("cancelled", {})


async def test_cancelling_what_has_ended_changes_nothing(
    producer: Producer, consumer: Consumer
) -> None:
    request = submission(producer)
    await producer.submit(request)
    serve(consumer)
    status = await producer.cancel("default", request.id)
    assert status is not None
    assert status.state == "done"


async def test_a_request_nobody_waits_for_is_cancelled(
    producer: Producer, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setattr(producer_module, "ABANDON_S", 0.05)
    abandoned, kept = submission(producer), submission(producer, kept=True)
    promised = submission(producer)
    for request in (abandoned, kept, promised):
        await producer.submit(request)
    await producer.keep("default", promised.id)
    for request in (abandoned, kept, promised):
        await producer.leave("default", request.id)
    await asyncio.gather(*producer._timers)
    states = [await producer.status("default", r.id) for r in (abandoned, kept, promised)]
    assert [status and status.state for status in states] == ["cancelled", "queued", "queued"]


async def test_the_drain_rate_is_measured_over_busy_time(
    producer: Producer, consumer: Consumer
) -> None:
    for _ in range(5_000):
        await producer.submit(submission(producer, ["x" * 100] * 64, lane="bulk"))
        serve(consumer)
        if (measured := (await producer.load(MODEL)).drain_rate) is not None:
            break
    assert measured is not None
    await producer.submit(submission(producer, ["x" * 100] * 64, lane="bulk"))
    receipt = await producer.submit(submission(producer, ["x" * 100], lane="bulk"))
    assert receipt.estimated_wait_s == pytest.approx((6_500 + 64 * 100) / measured)  # and a batch
