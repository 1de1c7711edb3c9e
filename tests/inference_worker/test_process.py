"""Tests of worker processes on a real server: they are signalled, killed, hung and poisoned."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.warnings import warning
from tests.inference_worker.processes import paced, worker
from tests.inference_worker.requests import (
    end_leases,
    finished,
    nothing_left,
    status,
    submission,
    taken,
    until,
)
from tests.redis_server import RedisServer, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
async def producer(broker_settings: BrokerSettings) -> AsyncIterator[Producer]:
    made = Producer(broker_settings, "tests")
    await made.prepare()
    yield made
    await made.close()


async def test_what_the_model_loses_is_found_and_mended(
    broker_settings: BrokerSettings, producer: Producer
) -> None:
    texts = ["Do you know {name}?", "WHERE IS THE STATION?", "I love you ❤️", "Where is it?"]
    with worker(broker_settings) as process:
        process.ready()
        sent = submission(producer, texts)
        await producer.submit(sent)
        outcomes = await finished(producer, sent)
    found = [(outcome.text or "", outcome.details) for outcome in outcomes]
    assert "{name}" in found[0][0]
    assert "駅" in found[1][0]
    assert found[2][0].endswith(" ❤️")
    warnings = [details.warnings for _, details in found if details]
    assert warnings == [[warning("mended", 1, 1)]] * 3 + [[]]


async def test_real_sentences_of_several_pairs(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    with worker(broker_settings, "--max-source-tokens", "64") as process:
        process.ready()
        model = await producer.model("small")
        assert model is not None
        assert {"en", "ja"} <= set(model.languages)
        assert model.max_source_tokens == 64
        english = submission(producer, ["Where is the station?\n\nWhere is the station?", " ", ""])
        japanese = submission(producer, ["彼は毎日学校へ行きます。"], source="ja", target="en")
        strange = submission(producer, ["x"], source="tlh")
        for request in (english, japanese, strange):
            await producer.submit(request)
        texts = [outcome.text for outcome in await finished(producer, english)]
        assert texts == ["駅はどこですか。\n\n駅はどこですか。", " ", ""]
        assert (await finished(producer, japanese))[0].text == "He goes to school every day."
        (error,) = await finished(producer, strange)
        assert error.error is not None
        assert error.error.code == "unsupported_language"
        process.send(signal.SIGTERM)
        assert process.ended() == 0
        assert "dragoman-worker stopped" in process.output
    assert await producer.workers("small") == []
    assert nothing_left(redis_server)


async def test_sigterm_mid_batch_finishes_the_slots_and_leaves_the_rest(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    texts = [f"Sentence {n}." for n in range(1_000)]
    request = submission(producer, texts)
    with paced(broker_settings, pace_s=0.2) as first:
        first.ready()
        await producer.submit(request)
        await until(producer, request, 1)
        first.send(signal.SIGTERM)
        assert first.ended() == 0
    done = (await status(producer, request)).done
    assert 1 <= done < 1_000
    with paced(broker_settings) as second:
        second.ready()
        outcomes = await finished(producer, request)
    assert [outcome.text for outcome in outcomes] == texts
    assert {outcome.details.attempts for outcome in outcomes if outcome.details} == {1}
    assert nothing_left(redis_server)


async def test_sigterm_at_the_end_of_the_grace_hands_back(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    text = "".join(f"Sentence {n}. " for n in range(400)).strip()
    request = submission(producer, [text])
    with paced(broker_settings, "--grace-s", "5.3", "--slots", "4", pace_s=0.1) as first:
        first.ready()
        await producer.submit(request)
        wait_until(lambda: taken(redis_server), description="the record is taken")
        first.send(signal.SIGTERM)
        assert first.ended() == 0
        assert "handed back 1 records" in first.output
    with paced(broker_settings) as second:
        second.ready()
        (outcome,) = await finished(producer, request)
    assert outcome.details is not None
    assert outcome.details.attempts == 1
    assert outcome.text == text


async def test_kill_9_mid_batch_and_every_record_is_answered_once(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    texts = [f"Sentence {n}." for n in range(60)]
    request = submission(producer, texts)
    with paced(broker_settings, pace_s=0.3) as doomed:
        doomed.ready()
        await producer.submit(request)
        await until(producer, request, 1)
        doomed.send(signal.SIGKILL)
        doomed.ended()
    end_leases(redis_server, doomed)
    with paced(broker_settings) as other:
        other.ready()
        outcomes = await finished(producer, request)
    assert [outcome.text for outcome in outcomes] == texts
    assert (await status(producer, request)).done == 60
    assert nothing_left(redis_server)


async def test_a_hung_step_ends_the_process_and_its_records_finish_elsewhere(
    broker_settings: BrokerSettings,
    redis_server: RedisServer,
    producer: Producer,
    tmp_path: Path,
) -> None:
    texts = [f"Sentence {n}." for n in range(20)]
    request = submission(producer, texts)
    once = tmp_path / "hung"
    options: dict[str, Any] = {"fault": "hang", "text": "Sentence 7.", "once": once}
    with paced(broker_settings, "--hang-s", "3", **options) as hung:
        hung.ready()
        await producer.submit(request)
        assert hung.ended() == 1
        assert "Timeout (0:00:03" in hung.output
        assert "engines.py" in hung.output
    end_leases(redis_server, hung)
    with paced(broker_settings, **options) as other:
        other.ready()
        outcomes = await finished(producer, request)
    assert [outcome.text for outcome in outcomes] == texts
    assert nothing_left(redis_server)


async def test_a_python_exception_costs_one_record_of_64(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    texts = [f"Sentence {n}." for n in range(64)]
    request = submission(producer, texts)
    with paced(broker_settings, "--slots", "64", fault="raise", text="Sentence 40.") as process:
        process.ready()
        await producer.submit(request)
        outcomes = await finished(producer, request)
        assert process.running
    failed = [n for n, outcome in enumerate(outcomes) if outcome.error]
    assert failed == [40]
    assert {outcome.details.attempts for outcome in outcomes if outcome.details} == {1}
    assert nothing_left(redis_server)


async def test_a_record_that_ends_every_process_becomes_a_dead_letter(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    texts = [f"Sentence {n}." for n in range(64)]
    request = submission(producer, texts)
    options = {"fault": "crash", "text": "Sentence 40."}
    await producer.submit(request)
    crashes = 0
    for _ in range(8):
        with paced(broker_settings, "--slots", "64", **options) as process:
            wait_until(
                lambda: not process.running or redis_server.client.exists("dragoman:{0}:dead"),
                description="the worker crashes or gives the record up",
                timeout_s=120.0,
            )
            if not process.running:
                crashes += 1
                end_leases(redis_server, process)
                continue
            outcomes = await finished(producer, request)
            break
    assert crashes == 3
    codes = [outcome.error and outcome.error.code for outcome in outcomes]
    assert codes == [None] * 40 + ["poison"] + [None] * 23
    assert redis_server.client.xlen("dragoman:{0}:dead") == 1
    assert nothing_left(redis_server)


async def test_sigstop_past_the_lease_gives_one_result(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    texts = [f"Sentence {n}." for n in range(12)]
    request = submission(producer, texts)
    with paced(broker_settings, pace_s=1.0) as stopped:
        stopped.ready()
        await producer.submit(request)
        wait_until(lambda: taken(redis_server), description="records are taken")
        stopped.send(signal.SIGSTOP)
        end_leases(redis_server, stopped)
        with paced(broker_settings) as other:
            other.ready()
            outcomes = await finished(producer, request)
        stopped.send(signal.SIGCONT)
        later = submission(producer, ["Later."])
        await producer.submit(later)
        await finished(producer, later)
    assert [outcome.text for outcome in outcomes] == texts
    assert (await status(producer, request)).done == 12
    assert nothing_left(redis_server)


async def test_a_worker_waits_for_a_server_that_comes_back(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    with paced(broker_settings) as process:
        process.ready()
        redis_server.kill()
        wait_until(lambda: "trying again" in process.output, description="the worker notices")
        redis_server.start()
        request = submission(producer, ["Hello."])
        await producer.submit(request)
        assert (await finished(producer, request))[0].text == "Hello."


async def test_a_worker_remembers_what_another_has_translated(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    texts = ["One. Two.\n\nThree.", "Two.", "One. One."]
    first, second = submission(producer, texts), submission(producer, texts)
    with paced(broker_settings) as process:
        process.ready()
        await producer.submit(first)
        before = await finished(producer, first)
        # Results are written before the memory is.
        wait_until(
            lambda: redis_server.client.zcard("dragoman:{0}:memory:default:index") == 3,
            description="three sentences are remembered",
        )
        process.send(signal.SIGTERM)
        assert process.ended() == 0
    with paced(broker_settings) as process:
        process.ready()
        await producer.submit(second)
        after = await finished(producer, second)
    assert [outcome.text for outcome in before] == [outcome.text for outcome in after] == texts
    told = [outcome.details for outcome in before + after if outcome.details]
    assert [one.cached for one in told] == [0, 0, 0, 3, 1, 2]
    # How much of the first request was in flight at once is the worker's business.
    assert [one.coalesced for one in told[3:]] == [0, 0, 0]


async def test_a_memory_full_of_nonsense_stops_nobody(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    index = "dragoman:{0}:memory:default:index"
    redis_server.client.set(index, "no sorted set", px=60_000)
    requests = [submission(producer, ["One. Two."]) for _ in range(2)]
    with paced(broker_settings) as process:
        process.ready()
        for request in requests:
            await producer.submit(request)
            assert [outcome.text for outcome in await finished(producer, request)] == ["One. Two."]
        wait_until(
            lambda: "going on without" in process.output, description="the worker has said so"
        )
        process.send(signal.SIGTERM)
        assert process.ended() == 0


async def test_the_memory_can_be_switched_off(
    broker_settings: BrokerSettings, redis_server: RedisServer, producer: Producer
) -> None:
    request = submission(producer, ["One.", "One."])
    with paced(broker_settings, "--memory", "false") as process:
        process.ready()
        await producer.submit(request)
        outcomes = await finished(producer, request)
        process.send(signal.SIGTERM)
        assert process.ended() == 0
    assert [o.details and (o.details.cached, o.details.coalesced) for o in outcomes] == [(0, 0)] * 2
    assert list(redis_server.client.scan_iter("dragoman:*:memory:*")) == []
