import multiprocessing
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import redis

from broker import functions
from broker.consumer import Consumer
from broker.errors import BrokerMisconfigured, BrokerUnavailable
from broker.keys import GROUP, Keys, new_request_id, shard_keys, shard_of
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Completion, Delivery, Failure, ModelEntry, Outcome
from tests.broker.parties import MODEL, answers, beat, serve, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

KEYS = Keys("0")


def pending(server: RedisServer, lane: str = "interactive") -> int:
    return int(server.client.xpending(KEYS.queue(MODEL, lane), GROUP)["pending"])


async def test_a_record_goes_out_and_its_result_comes_back(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    request = submission(producer, ["one", "two"])
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 100)
    assert [d.record.text for d in deliveries] == ["one", "two"]
    assert {d.attempts for d in deliveries} == {1}
    assert consumer.begin(deliveries) == ["go", "go"]
    status = await producer.status("default", request.id)
    assert status is not None
    assert status.state == "running"
    assert consumer.complete(answers(deliveries)) == 2
    view = await producer.view("default", request.id)
    assert view is not None
    assert view[0].state == "done"
    assert [view[1][i].text for i in range(2)] == ["eno", "owt"]
    assert redis_server.client.xlen(KEYS.queue(MODEL, "interactive")) == 0


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


async def test_a_second_finisher_changes_nothing(producer: Producer, consumer: Consumer) -> None:
    request = submission(producer, ["one", "two"])
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    assert consumer.complete(answers(deliveries[:1])) == 1
    other = [Completion(deliveries[0], Outcome(text="other"))]
    assert consumer.complete(other) == 0
    assert consumer.complete(other * 1) == 0
    view = await producer.view("default", request.id)
    assert view is not None
    assert (view[0].done, view[0].state, view[1][0].text) == (1, "queued", "eno")


async def test_failed_and_mixed_requests_end_in_the_right_state(
    producer: Producer, consumer: Consumer
) -> None:
    failing, mixed = submission(producer, ["a", "b"]), submission(producer, ["c", "d"])
    await producer.submit(failing)
    await producer.submit(mixed)
    error = Outcome(error=Failure("internal", "broken"))
    completions = [
        Completion(d, Outcome(text="T") if d.record.text == "c" else error)
        for d in consumer.read(8, 8, 0)
    ]
    consumer.complete(completions)
    views = [await producer.view("default", request.id) for request in (failing, mixed)]
    assert [view and view[0].state for view in views] == ["failed", "done"]


async def test_deadlines_are_checked_before_model_time_is_spent(
    producer: Producer, consumer: Consumer, wait_until: Callable[..., Any]
) -> None:
    await producer.submit(submission(producer, ["late"], deadline_ms=1))
    await producer.submit(submission(producer, ["in time"]))
    start = redis_time(consumer)
    wait_until(lambda: redis_time(consumer) > start + 2, description="the deadline passes")
    deliveries = consumer.read(8, 8, 0)
    assert consumer.begin(deliveries) == ["expired", "go"]


async def test_what_cannot_be_there_before_its_deadline_is_given_up(
    producer: Producer, consumer: Consumer
) -> None:
    await producer.submit(submission(producer, ["soon"], deadline_ms=60_000))
    await producer.submit(submission(producer, ["later"], deadline_ms=600_000))
    deliveries = consumer.read(8, 8, 0)
    assert consumer.begin(deliveries) == ["go", "go"]
    assert consumer.begin(deliveries, 70.0) == ["expired", "go"]


@pytest.mark.parametrize("kept", [False, True])
async def test_what_its_callers_left_gives_way_to_what_waits(
    producer: Producer, consumer: Consumer, kept: bool
) -> None:
    left = submission(producer, ["left"], kept=kept, join="work")
    await producer.submit(left)
    await producer.submit(submission(producer, ["wanted"]))
    await producer.leave("default", left.id)
    deliveries = consumer.read(8, 8, 0)
    assert consumer.begin(deliveries) == ["go", "go"]  # nothing else waits, and they may come back
    assert consumer.begin(deliveries, 0.001) == ["go" if kept else "cancelled", "go"]
    again = await producer.submit(submission(producer, ["left"], join="work"))
    assert again.joined == kept


def redis_time(consumer: Consumer) -> int:
    seconds, microseconds = consumer._client.time()
    return int(seconds * 1000 + microseconds // 1000)


async def test_what_nobody_needs_is_over(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    gone, answered = submission(producer, ["gone"]), submission(producer, ["answered", "open"])
    await producer.submit(gone)
    await producer.submit(answered)
    deliveries = consumer.read(8, 8, 0)
    redis_server.client.delete(KEYS.request("default", gone.id))
    redis_server.client.hset(KEYS.request("default", answered.id), "0", '{"text":"x"}')
    assert consumer.begin(deliveries) == ["over", "over", "go"]
    consumer.discard(deliveries)
    assert pending(redis_server) == 0
    assert redis_server.client.xlen(KEYS.queue(MODEL, "interactive")) == 0
    assert (await producer.load(MODEL)).outstanding_cost == 0


async def test_a_dead_letter_keeps_the_record_and_fails_it(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    request = submission(producer, ["poison"])
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    outcome = Outcome(error=Failure("poison", "ended three workers"))
    consumer.complete([Completion(deliveries[0], outcome, dead=True)])
    letters = redis_server.client.xrange(KEYS.dead())
    assert len(letters) == 1
    assert b'"text":"poison"' in letters[0][1][b"record"]
    view = await producer.view("default", request.id)
    assert view is not None
    assert view[0].state == "failed"
    assert view[1][0] == outcome


async def test_more_completions_than_one_call_takes(
    producer: Producer, broker_settings: BrokerSettings
) -> None:
    consumer = worker(broker_settings, 1000)
    request = submission(producer, [str(i) for i in range(1000)], lane="bulk")
    await producer.submit(request)
    deliveries = consumer.read(0, 1000, 0)
    assert consumer.complete(answers(deliveries)) == 1000
    view = await producer.view("default", request.id)
    assert view is not None
    assert [view[1][i].text for i in range(1000)] == [str(i)[::-1] for i in range(1000)]
    consumer.close()


# ── Leases, reclaiming, handing back ─────────────────────────────────────────────────────────


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


# ── The server loses things ──────────────────────────────────────────────────────────────────


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
    redis_server.client.flushall()
    redis_server.client.function_flush()
    await producer.submit(submission(producer, ["after"]))
    assert consumer.read(8, 8, 0) == []  # makes the groups
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


async def test_complete_is_tried_until_redis_answers(
    producer: Producer, consumer: Consumer, redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    await producer.submit(submission(producer, ["a"]))
    deliveries = consumer.read(8, 8, 0)
    call, failures = functions.call, iter([redis.ConnectionError(), redis.TimeoutError(), None])

    def flaky(*arguments: Any) -> Any:
        answer = call(*arguments)  # the server did it, but the reply was lost
        if error := next(failures, None):
            raise error
        return answer

    monkeypatch.setattr(functions, "call", flaky)
    assert consumer.complete(answers(deliveries)) == 0  # the first try counted; nothing twice
    load = await producer.load(MODEL)
    assert (load.outstanding_cost, load.ready) == (0, 0)


async def test_complete_gives_up_only_when_told(
    producer: Producer, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await producer.submit(submission(producer, ["a"]))
    deliveries = consumer.read(8, 8, 0)
    consumer.give_up = lambda: True
    consumer.complete([])

    def broken(*arguments: Any) -> Any:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(functions, "call", broken)
    with pytest.raises(BrokerUnavailable):
        consumer.complete(answers(deliveries))


# ── Reporting ────────────────────────────────────────────────────────────────────────────────


async def test_a_model_stays_announced_when_its_worker_is_gone(
    producer: Producer, consumer: Consumer
) -> None:
    assert await producer.model(MODEL) is None
    entry = ModelEntry(MODEL, "revision", ["en", "ja"], 128)
    consumer.announce(entry)
    consumer.retire()
    assert await producer.model(MODEL) == entry


async def test_a_silent_worker_is_forgotten_after_three_heartbeats(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer,
    wait_until: Callable[..., Any],
) -> None:  # fmt: skip
    silent, alive = worker(settings_for(redis_server, heartbeat_s=0.02)), worker(broker_settings)
    name = KEYS.worker(silent.worker)
    wait_until(lambda: not redis_server.client.exists(name), description="its hash expires")
    beat(alive)
    assert [entry.id for entry in await producer.workers(MODEL)] == [alive.worker]
    silent.close()
    alive.close()


async def test_a_worker_starts_while_memory_is_full(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    """Or a fleet that was restarted then would never make room again."""
    await producer.submit(submission(producer, ["waiting"]))
    redis_server.client.config_set("maxmemory", "1")
    try:
        started = worker(broker_settings)
        started.announce(ModelEntry(MODEL, "r1", ["en", "ja"], 128))
        assert serve(started) == 1
        started.close()
    finally:
        redis_server.client.config_set("maxmemory", "0")
    entry = await producer.model(MODEL)
    assert entry is not None
    assert (entry.revision, entry.languages, entry.max_source_tokens) == ("r1", ["en", "ja"], 128)


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
