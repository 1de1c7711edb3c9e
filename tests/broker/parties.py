"""The parties of the protocol, made short: what the broker tests submit and how they answer it."""

from collections.abc import Iterable, Sequence
from typing import Any

from broker.consumer import Consumer
from broker.keys import GROUP, Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Completion, Delivery, Outcome, Submission, WorkerEntry
from tests.redis_server import RedisServer

MODEL = "small"


def submission(producer: Producer, texts: Sequence[str] = ("hello",), **changes: Any) -> Submission:
    values: dict[str, Any] = {
        "id": producer.new_request_id(changes.get("idempotency", "")),
        "tenant": "default",
        "model": MODEL,
        "lane": "interactive",
        "source": "en",
        "target": "ja",
        "ids": list(range(len(texts))),
        "texts": list(texts),
        "deadline_ms": 600_000,
    }
    return Submission(**(values | changes))


def worker(settings: BrokerSettings, batch: int = 64) -> Consumer:
    """A consumer that has reported once."""
    consumer = Consumer(settings, MODEL)
    consumer.prepare()
    beat(consumer, batch)
    return consumer


def beat(consumer: Consumer, batch: int = 64) -> None:
    consumer.heartbeat(WorkerEntry(consumer.worker, MODEL, "cpu", "test", batch, 0, 0, 0, 0), batch)


def answers(deliveries: Iterable[Delivery]) -> list[Completion]:
    """Every text reversed."""
    return [Completion(d, Outcome(text=d.record.text[::-1])) for d in deliveries]


def serve(consumer: Consumer, count: int = 64) -> int:
    """Reads, begins and completes one batch; returns how many records it completed first."""
    deliveries = consumer.read(count, count, 0)
    verdicts = consumer.begin(deliveries)
    going = [d for d, verdict in zip(deliveries, verdicts, strict=True) if verdict == "go"]
    rest = [d for d, verdict in zip(deliveries, verdicts, strict=True) if verdict != "go"]
    consumer.discard(rest)
    return consumer.complete(answers(going))


def pending(server: RedisServer, lane: str = "interactive") -> int:
    """Records that workers hold."""
    return int(server.client.xpending(Keys("0").queue(MODEL, lane), GROUP)["pending"])
