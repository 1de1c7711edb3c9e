"""Tests of ``broker.consumer``: begun, completed, reported."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from broker import functions
from broker.consumer import Consumer
from broker.errors import BrokerUnavailable
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Completion, Failure, ModelEntry, Outcome
from tests.broker.parties import MODEL, answers, beat, pending, serve, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

KEYS = Keys("0")


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
