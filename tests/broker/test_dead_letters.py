"""Dead letters as an operator handles them, on a real server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from broker.consumer import Consumer
from broker.dead_letters import DeadLetters
from broker.errors import Overloaded
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Completion, Details, Failure, Outcome
from tests.broker.parties import MODEL, answers, beat, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

POISON = Outcome(
    error=Failure("poison", "The record ended every worker it was given to."),
    details=Details(model=MODEL, worker="w-9", attempts=4),
)


async def bury(producer: Producer, consumer: Consumer, *texts: str, **changes: Any) -> str:
    """Submits the texts and completes each as a dead letter; the request's id."""
    request = submission(producer, texts, **changes)
    await producer.submit(request)
    deliveries = consumer.read(len(texts), len(texts), 0)
    consumer.complete([Completion(delivery, POISON, dead=True) for delivery in deliveries])
    return request.id


@pytest.fixture
def letters(broker_settings: BrokerSettings) -> Iterator[DeadLetters]:
    made = DeadLetters(broker_settings)
    yield made
    made.close()


async def test_they_are_listed_with_what_became_of_them(
    producer: Producer, consumer: Consumer, letters: DeadLetters
) -> None:
    request_id = await bury(producer, consumer, "first", "second", tenant="acme")
    found = list(letters)
    assert [letter.record.text for letter in found] == ["first", "second"]
    assert [letter.record.request for letter in found] == [request_id] * 2
    assert {(letter.model, letter.record.tenant) for letter in found} == {(MODEL, "acme")}
    assert found[0].outcome == POISON
    assert found[0].died_ms >= found[0].record.accepted_ms
    assert letters.get(found[1].id) == found[1]


async def test_more_than_a_page(
    producer: Producer,
    consumer: Consumer,
    letters: DeadLetters,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.dead_letters.PAGE", 2)
    await bury(producer, consumer, *"abcde")
    assert [letter.record.text for letter in letters] == list("abcde")


@pytest.mark.parametrize("letter_id", ["", "1-1", "7:1-1", "nonsense", "1-1 2-2", "-"])
async def test_ids_that_none_has(letters: DeadLetters, letter_id: str) -> None:
    assert letters.get(letter_id) is None
    assert letters.discard(letter_id) is False


async def test_a_discarded_one_is_gone(
    producer: Producer, consumer: Consumer, letters: DeadLetters
) -> None:
    await bury(producer, consumer, "first", "second")
    first, second = letters
    assert letters.discard(first.id)
    assert not letters.discard(first.id)
    assert list(letters) == [second]


async def test_one_that_is_put_back_is_a_new_request_of_its_tenant(
    producer: Producer, consumer: Consumer, letters: DeadLetters
) -> None:
    old = await bury(producer, consumer, "fine", "bad", tenant="acme", ids=["a", "b"])
    letter = next(found for found in letters if found.record.text == "bad")
    new = await letters.retry(producer, letter)
    assert new != old
    assert [left.record.text for left in letters] == ["fine"]
    deliveries = consumer.read(8, 8, 0)
    assert [(d.record.request, d.record.lane) for d in deliveries] == [(new, "bulk")]
    consumer.complete(answers(deliveries))
    view = await producer.view("acme", new)
    assert view is not None
    assert view[0].ids == ["b"]
    assert view[1][0].text == "dab"
    # What has been answered stays as it was answered.
    first = await producer.view("acme", old)
    assert first is not None
    assert (first[0].state, first[1][1]) == ("failed", POISON)
    assert (await producer.load(MODEL)).outstanding_cost == 0


async def test_putting_back_twice_translates_once(
    producer: Producer, consumer: Consumer, letters: DeadLetters
) -> None:
    """The command may end between the two steps."""
    await bury(producer, consumer, "bad")
    (letter,) = letters
    first = await letters.retry(producer, letter)
    assert await letters.retry(producer, letter) == first
    assert len(consumer.read(8, 8, 0)) == 1


async def test_a_record_whose_request_is_forgotten_can_be_put_back(
    producer: Producer, consumer: Consumer, letters: DeadLetters, redis_server: RedisServer
) -> None:
    old = await bury(producer, consumer, "fine", "bad")
    redis_server.client.delete(Keys("0").request("default", old))
    letter = next(found for found in letters if found.record.text == "bad")
    new = await letters.retry(producer, letter)
    status = await producer.status("default", new)
    assert status is not None
    assert status.ids == [1]


async def test_a_refused_one_stays(
    producer: Producer, consumer: Consumer, letters: DeadLetters, redis_server: RedisServer
) -> None:
    await bury(producer, consumer, "bad")
    (letter,) = letters
    await producer.submit(submission(producer, ["waiting"]))
    small = Producer(settings_for(redis_server, max_outstanding_chars=1), "operator")
    with pytest.raises(Overloaded):
        await letters.retry(small, letter)
    await small.close()
    assert list(letters) == [letter]


@pytest.fixture
async def sharded(redis_server: RedisServer) -> AsyncIterator[tuple[Producer, Consumer]]:
    settings = settings_for(redis_server, shards=2)
    producer, consumer = Producer(settings, "api-1"), worker(settings)
    yield producer, consumer
    consumer.close()
    await producer.close()


async def test_shards_have_their_own(
    sharded: tuple[Producer, Consumer], redis_server: RedisServer
) -> None:
    producer, consumer = sharded
    shards: set[str] = set()
    while len(shards) < 2:
        shards.add((await bury(producer, consumer, "bad"))[-2:])
        beat(consumer)
    letters = DeadLetters(settings_for(redis_server, shards=2))
    found = list(letters)
    assert {letter.id.partition(":")[0] for letter in found} == {"0", "1"}
    assert all(letters.get(letter.id) == letter for letter in found)
    for letter in found:
        await letters.retry(producer, letter)
    assert list(letters) == []
    letters.close()


def test_a_negative_number_of_letters_to_keep_is_refused() -> None:
    """Redis would refuse it when the first record dies, after the record has left its stream."""
    with pytest.raises(ValueError, match="--dead-letters must be 0 or more"):
        BrokerSettings(dead_letters=-1)
