"""What the tests of worker processes submit, and how they see what became of it."""

from typing import Any

import redis

from broker.producer import Producer
from broker.wire import Outcome, RequestStatus, Submission
from tests.inference_worker.processes import WorkerProcess
from tests.redis_server import RedisServer
from tests.waiting import reached


def submission(producer: Producer, texts: list[str], **changes: Any) -> Submission:
    values: dict[str, Any] = {
        "id": producer.new_request_id(),
        "tenant": "default",
        "model": "small",
        "lane": "bulk",
        "source": "en",
        "target": "ja",
        "ids": list(range(len(texts))),
        "texts": texts,
        "deadline_ms": 600_000,
        "kept": True,
    }
    return Submission(**(values | changes))


async def status(producer: Producer, request: Submission) -> RequestStatus:
    found = await producer.status("default", request.id)
    assert found is not None
    return found


async def until(producer: Producer, request: Submission, done: int) -> None:
    """Waits until so many records of a request have an outcome."""

    async def enough() -> bool:
        return (await status(producer, request)).done >= done

    await reached(enough, description=f"{done} records are done", timeout_s=120)


async def finished(producer: Producer, request: Submission) -> list[Outcome]:
    """Every outcome of a request, once it has ended."""
    await until(producer, request, len(request.texts))
    assert (await status(producer, request)).finished
    found = await producer.outcomes("default", request.id, range(len(request.texts)))
    return [found[index] for index in range(len(request.texts))]


def nothing_left(server: RedisServer) -> bool:
    """Whether no record is in the window, delivered or not, and no cost is outstanding."""
    keys = list(server.client.scan_iter("dragoman:*:queue:*"))
    load = server.client.hgetall("dragoman:{0}:load")
    return not any(server.client.xlen(key) for key in keys) and load[b"cost:small"] == b"0"


def taken(server: RedisServer) -> int:
    """How many records workers hold."""
    stream = "dragoman:{0}:queue:small:bulk"
    try:
        return int(server.client.xpending(stream, "workers")["pending"])
    except redis.ResponseError:  # no worker has been there yet
        return 0


def end_leases(server: RedisServer, process: WorkerProcess) -> None:
    """As if a worker had been silent for longer than a lease."""
    stream = "dragoman:{0}:queue:small:bulk"
    for entry in server.client.xpending_range(stream, "workers", "-", "+", 1_000):
        if f"-{process.pid}-".encode() in entry["consumer"]:
            server.client.xclaim(
                stream, "workers", entry["consumer"], 0, [entry["message_id"]], idle=600_000,
                justid=True,
            )  # fmt: skip
