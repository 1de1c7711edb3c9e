"""A run of a document where the queue is full, the time is short, or the texts repeat."""

import asyncio
from contextlib import suppress

import pytest

from broker.document_settings import DocumentSettings
from broker.settings import BrokerSettings
from document_worker.patience import reached
from tests.document_worker.stage import Desk, DocumentProcess, ModelWorker, document_process, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow


async def test_a_full_queue_is_waited_for(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer
) -> None:
    body = b"\n".join(b"line %d" % number for number in range(600))
    with document_process(redis_server.url, "--max-outstanding-chars", "1") as process:
        document_id = await desk.submit(body)
        document = await until(desk, document_id, state="done")
    assert document.ending is not None
    assert document.ending.failed == 0
    assert await desk.documents.result("default", document_id) == body.upper()
    assert "Overloaded" not in process.log


async def test_what_the_deadline_overtakes_stays_as_it_was(
    broker_settings: BrokerSettings, redis_server: RedisServer, model_worker: ModelWorker
) -> None:
    settings = DocumentSettings(document_ttl_s=60, document_deadline_s=10)
    lines = [b"line %d" % number for number in range(2_000)]
    model_worker.hold_after(100)
    async with Desk(broker_settings, redis_server, settings) as desk:
        with document_process(redis_server.url):
            document_id = await desk.submit(b"\n".join(lines))
            document = await until(desk, document_id, state="done")
        result = await desk.documents.result("default", document_id) or b""
    assert document.ending is not None
    assert {flaw.code for flaw in document.ending.flaws} == {"expired"}
    assert len(document.ending.flaws) == 1_000
    translated = len(model_worker.seen)
    assert document.ending.failed == len(lines) - translated
    assert result.lower() == b"\n".join(lines)
    assert sum(line.isupper() for line in result.splitlines()) == translated


async def test_without_a_model_worker_a_document_ends_at_its_deadline(
    broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    settings = DocumentSettings(document_ttl_s=60, document_deadline_s=1)
    async with Desk(broker_settings, redis_server, settings) as desk:
        with document_process(redis_server.url):
            document_id = await desk.submit(b"one\ntwo\n")
            document = await until(desk, document_id, state="failed")
    assert document.ending is not None
    assert document.ending.error is not None
    assert document.ending.error.code == "expired"


async def test_equal_batches_are_sent_once(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer
) -> None:
    body = b"the same\n" * 1_000
    with document_process(redis_server.url):
        document_id = await desk.submit(body)
        document = await until(desk, document_id, state="done")
    assert (document.total, document.done) == (1_000, 1_000)
    assert await desk.documents.result("default", document_id) == body.upper()
    assert len(model_worker.seen) == 250


async def test_progress_is_told_while_a_document_runs(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer
) -> None:
    body = b"\n".join(b"line %d" % number for number in range(1_500))
    model_worker.hold_after(640)
    with document_process(redis_server.url):
        document_id = await desk.submit(body)
        assert await asyncio.to_thread(model_worker.held.wait, 60)
        document = await until(desk, document_id, done=len(model_worker.seen))
        assert (document.state, document.total) == ("running", 1_500)
        # At most four requests of 250 texts have been submitted.
        open_texts = redis_server.client.hlen(
            f"dragoman:{{0}}:document:default:{document_id}:requests"
        )
        assert open_texts <= 4 + 640 // 250
        model_worker.resume()
        await until(desk, document_id, state="done")


async def test_a_job_lost_on_the_way_to_its_worker_is_found(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer
) -> None:
    document_id = await desk.submit(b"one\n")
    intermediate = desk.queue.intermediate_queue
    redis_server.client.lmove(desk.queue.key, intermediate.key)
    redis_server.client.set(intermediate.get_first_seen_key(document_id), 1.0, ex=60)
    with document_process(redis_server.url):
        await until(desk, document_id, state="done")


async def test_the_texts_go_under_the_quota_of_their_tenant(
    desk: Desk,
    documents_process: DocumentProcess,
    model_worker: ModelWorker,
    redis_server: RedisServer,
) -> None:
    """A cap that holds back all but one request at a time is waited for, not failed at."""
    lines = [b"line %d" % number for number in range(600)]
    document_id = await desk.store(b"\n".join(lines), weight=3.0, tenant_cap=10)
    desk.enqueue(document_id)
    document = await until(desk, document_id, state="done")
    assert document.ending is not None
    assert document.ending.failed == 0
    requests = list(redis_server.client.scan_iter("dragoman:{0}:request:default:*"))
    assert len(requests) == 3
    assert {redis_server.client.hget(name, "weight") for name in requests} == {b"3.0"}


async def test_a_cancellation_that_a_call_swallows_is_not_lost() -> None:
    """As redis-py does with one that comes in the tick of its answer: a run that was told to stop
    went on, and waited for ever."""
    called = asyncio.Event()

    async def swallowing() -> str:
        called.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "answer"

    run = asyncio.ensure_future(reached(swallowing))
    await called.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_an_answer_within_a_limit_of_time_is_an_answer() -> None:
    async def answer() -> str:
        return "answer"

    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.sleep(1)
    assert await reached(answer) == "answer"
