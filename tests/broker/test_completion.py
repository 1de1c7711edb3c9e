"""One call completes records of many requests: each must count for itself."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from broker import admission, functions
from broker.consumer import Consumer
from broker.keys import GROUP, Keys
from broker.producer import Producer
from broker.wire import LANES, Completion, Failure, Outcome, Record
from tests.broker.parties import MODEL, answers, serve, submission
from tests.redis_server import RedisServer

KEYS = Keys("0")
POISON = Outcome(error=Failure("poison", "ended three workers"))


def loads(server: RedisServer) -> dict[str, int]:
    """Outstanding cost, of the model and of each lane and tenant."""
    fields = server.client.hgetall(KEYS.load())
    costs = {name.decode(): value for name, value in fields.items()}
    return {
        name: int(value)
        for name, value in costs.items()
        if name.startswith(("cost:", "tenant:")) and int(value) != 0
    }


def left(server: RedisServer) -> int:
    """Entries in both streams, and what is pending of them."""
    streams = [KEYS.queue(MODEL, lane) for lane in ("interactive", "bulk")]
    pending = [server.client.xpending(stream, GROUP)["pending"] for stream in streams]
    return int(sum(pending) + sum(server.client.xlen(stream) for stream in streams))


async def test_a_chunk_of_many_requests_lanes_and_tenants(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    ours = submission(producer, ["one", "two"])
    theirs = submission(producer, ["three"], tenant="other", lane="bulk")
    failing = submission(producer, ["four"], tenant="other")
    leading = submission(producer, ["five"], idempotency="d" * 64, lane="bulk")
    requests = [ours, theirs, failing, leading]
    for request in requests:
        await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    consumer.begin(deliveries)
    # Mixed up, as records leave an engine.
    mixed = deliveries[::2] + deliveries[1::2]
    completions = [
        Completion(d, POISON if d.record.text == "four" else Outcome(text=d.record.text.upper()))
        for d in mixed
    ]
    assert consumer.complete(completions) == 5
    views = [await producer.view(request.tenant, request.id) for request in requests]
    assert [view and view[0].state for view in views] == ["done", "done", "failed", "done"]
    assert [view and [view[1][i].text for i in sorted(view[1])] for view in views] == [
        ["ONE", "TWO"],
        ["THREE"],
        [None],
        ["FIVE"],
    ]
    for request in requests:
        assert 0 < redis_server.client.pttl(KEYS.request(request.tenant, request.id)) <= 3_600_000
    assert 0 < redis_server.client.pttl(KEYS.idempotency("default", "d" * 64)) <= 3_600_000
    assert loads(redis_server) == {}
    assert left(redis_server) == 0


async def test_of_a_chunk_that_another_finished_in_part_the_rest_counts(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    first, second = submission(producer, ["a", "b", "c"]), submission(producer, ["d"], lane="bulk")
    for request in (first, second):
        await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    other = [Completion(d, Outcome(text="other")) for d in deliveries[1:2]]
    assert consumer.complete(other) == 1
    assert loads(redis_server)[f"cost:{MODEL}"] == 3
    dead = [Completion(d, POISON, dead=True) for d in deliveries]
    assert consumer.complete(dead) == 3
    assert consumer.complete(dead) == 0
    view = await producer.view("default", first.id)
    assert view is not None
    assert (view[0].state, view[0].succeeded) == ("done", 1)
    assert [view[1][i].text for i in range(3)] == [None, "other", None]
    letters = redis_server.client.xrange(KEYS.dead())
    assert len(letters) == 3  # none for what the other had finished
    assert all(b'"text":"b"' not in fields[b"record"] for _, fields in letters)
    assert loads(redis_server) == {}
    assert left(redis_server) == 0


async def test_a_record_that_is_there_twice_counts_once(
    producer: Producer, consumer: Consumer, redis_server: RedisServer,
    wait_until: Callable[..., Any],
) -> None:  # fmt: skip
    """As when Redis lost a request but not its entries, and it was submitted again."""
    request = submission(producer, ["one", "two"])
    await producer.submit(request)
    start = redis_server.client.time()
    wait_until(
        lambda: redis_server.client.time() > (start[0], start[1] + 1000),
        description="a millisecond: what was queued in the same one is the same record",
    )
    redis_server.client.delete(KEYS.request("default", request.id))
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    assert [d.record.index for d in deliveries] == [0, 1, 0, 1]
    assert consumer.begin(deliveries) == ["go"] * 4
    texts = ["first", "two", "second"]
    completions = [
        Completion(d, Outcome(text=text)) for d, text in zip(deliveries[:3], texts, strict=True)
    ]
    assert consumer.complete(completions) == 3
    assert consumer.begin(deliveries[3:]) == ["over"]
    assert consumer.complete([Completion(deliveries[3], Outcome(text="late"))]) == 1
    view = await producer.view("default", request.id)
    assert view is not None
    assert (view[0].state, view[0].done, view[0].succeeded) == ("done", 2, 2)
    assert [view[1][i].text for i in range(2)] == ["first", "two"]
    assert loads(redis_server) == {}


async def test_a_request_that_is_queued_again_within_a_millisecond_costs_what_is_queued(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    """Its records in the backlog are then the same as those that come anew."""
    request = submission(producer, ["x" * (i + 1) for i in range(1_000)], lane="bulk")
    now = datetime.now(UTC)
    names = admission.names(request, KEYS, now)
    told = admission.arguments(request, producer.settings, "api-1", "", True, now)
    call = ("FCALL", functions.name("submit"), len(names), *names, *told)
    with redis_server.client.pipeline(transaction=True) as pipe:  # one after the other at once
        pipe.execute_command(*call).delete(names[0]).execute_command(*call)
        first, _, second = pipe.execute()
    assert first[0] == second[0] == b"accepted"
    backlog = redis_server.client.zrange(KEYS.backlog(MODEL, "bulk"), 0, -1)
    window = redis_server.client.xrange(KEYS.queue(MODEL, "bulk"))
    records = [*backlog, *(fields[b"record"] for _, fields in window)]
    cost = sum(msgspec.json.decode(record, type=Record).cost for record in records)
    assert set(loads(redis_server).values()) == {cost}
    while serve(consumer, 256):
        pass
    assert loads(redis_server) == {}


async def test_what_is_read_again_because_its_group_was_destroyed_counts_once(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    for lane in LANES:
        await producer.submit(submission(producer, ["one", "two"], lane=lane))
    deliveries = consumer.read(8, 8, 0)
    for lane in LANES:
        redis_server.client.xgroup_destroy(KEYS.queue(MODEL, lane), GROUP)
    assert consumer.read(8, 8, 0) == []  # makes the groups again
    again = consumer.read(8, 8, 0)
    assert len(again) == len(deliveries) == 4
    assert consumer.complete(answers(deliveries[:3])) == 3
    assert consumer.complete(answers(again)) == 1
    assert consumer.complete(answers(deliveries)) == 0
    assert left(redis_server) == 0
    assert loads(redis_server) == {}


async def test_one_entry_twice_in_a_chunk_counts_once(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    await producer.submit(submission(producer, ["one", "two"]))
    deliveries = consumer.read(8, 8, 0)
    assert consumer.complete(answers([*deliveries, deliveries[0]])) == 2
    assert loads(redis_server) == {}


async def test_a_cancelled_request_in_a_chunk_gets_no_results(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    cancelled, wanted = submission(producer, ["a", "b"]), submission(producer, ["c"])
    for request in (cancelled, wanted):
        await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    await producer.cancel("default", cancelled.id)
    assert consumer.begin(deliveries) == ["cancelled", "cancelled", "go"]
    assert consumer.complete(answers(deliveries)) == 3
    views = [await producer.view("default", request.id) for request in (cancelled, wanted)]
    assert [view and (view[0].state, len(view[1])) for view in views] == [
        ("cancelled", 0),
        ("done", 1),
    ]
    assert loads(redis_server) == {}
    assert left(redis_server) == 0


async def test_results_and_what_needs_none_go_in_one_request(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    request = submission(producer, ["a", "b", "c"])
    await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    redis_server.client.hset(KEYS.request("default", request.id), "1", '{"text":"x"}')
    assert consumer.begin(deliveries) == ["go", "over", "go"]
    consumer.discard(deliveries[1:2])
    assert consumer.complete(answers(deliveries[::2])) == 2
    assert loads(redis_server) == {}


async def test_a_request_whose_counts_are_damaged_takes_no_other_down(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    damaged, sound = submission(producer, ["a", "b"]), submission(producer, ["c"])
    for request in (damaged, sound):
        await producer.submit(request)
    deliveries = consumer.read(8, 8, 0)
    key = KEYS.request("default", damaged.id)
    redis_server.client.hdel(key, "remaining", "succeeded")
    redis_server.client.hset(key, "total", "two")
    assert consumer.complete(answers(deliveries)) == 3
    view = await producer.view("default", sound.id)
    assert view is not None
    assert (view[0].state, view[1][0].text) == ("done", "c")
    assert loads(redis_server) == {}


async def test_what_lies_in_the_place_of_a_request_takes_no_other_down(
    producer: Producer, consumer: Consumer, redis_server: RedisServer
) -> None:
    gone, sound = submission(producer, ["a", "b"]), submission(producer, ["c"])
    for request in (gone, sound):
        await producer.submit(request)
    key = KEYS.request("default", gone.id)
    redis_server.client.delete(key)
    redis_server.client.set(key, "no hash", ex=60)
    deliveries = consumer.read(8, 8, 0)
    assert consumer.begin(deliveries) == ["over", "over", "go"]
    assert consumer.complete(answers(deliveries)) == 3
    assert await producer.view("default", gone.id) is None
    view = await producer.view("default", sound.id)
    assert view is not None
    assert (view[0].state, view[1][0].text) == ("done", "c")
    assert loads(redis_server) == {}
    assert left(redis_server) == 0
