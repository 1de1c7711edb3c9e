import pytest

from broker import answers
from broker.consumer import Consumer
from broker.keys import Keys
from broker.producer import Producer
from tests.broker.parties import serve, submission
from tests.redis_server import RedisServer

KEYS = Keys("0")


@pytest.mark.parametrize("stored", [b"{not json", b"\xff", b"[]", b"{}", b'{"text":1}', b""])
async def test_an_outcome_that_cannot_be_read_is_an_error_of_its_record_alone(
    producer: Producer,
    consumer: Consumer,
    redis_server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    stored: bytes,
) -> None:
    request = submission(producer, ["one", "two"])
    await producer.submit(request)
    serve(consumer)
    redis_server.client.hset(KEYS.request("default", request.id), "0", stored)
    view = await producer.view("default", request.id)
    assert view is not None
    assert [view[1][i].text for i in range(2)] == [None, "owt"]
    assert await producer.outcomes("default", request.id, [0, 1]) == view[1]
    error = view[1][0].error
    assert error is not None
    assert error.code == "internal"
    assert "send the record again" in error.detail
    assert f"record 0 of request {request.id}" in caplog.text


def test_a_worker_of_an_earlier_version_tells_less() -> None:
    told = {"model": "small", "device": "cpu", "engine": "ct2", "slots": 8, "rate": 1.5}
    told |= {"completed": 3, "started_ms": 1, "seen_ms": 2}
    entry = answers.worker("w", {k.encode(): str(v).encode() for k, v in told.items()})
    assert (entry.id, entry.slots, entry.rate, entry.completed) == ("w", 8, 1.5, 3)
    assert (entry.busy, entry.sentences, entry.warnings) == (0.0, 0, {})


def test_the_load_of_all_shards_has_the_rates_that_are_known() -> None:
    first = answers.load([b"5", b"2", b"3"], b"100", [1, 2, 3, 4], 1)
    second = answers.load([b"7", None, b"7"], None, [0, 0, 0, 1], 0)
    both = answers.total([first, second], workers=2)
    assert (both.outstanding_cost, both.cost_by_lane) == (12, {"interactive": 2, "bulk": 10})
    assert (both.drain_rate, both.ready, both.backlog) == (100.0, 3, 8)
    assert (both.workers, both.dead_letters) == (2, 1)
    assert answers.total([second], workers=0).drain_rate is None
