"""``dragoman-documents`` in processes of its own: kills, drains, refusals, errors at the start."""

import asyncio
import os
import signal
import zlib
from contextlib import suppress
from typing import Any

import pytest
from rq.exceptions import StopRequested

from document_worker.worker import DocumentWorker
from tests.conftest import settings_for
from tests.document_worker.stage import (
    Desk,
    DocumentProcess,
    ModelWorker,
    document_process,
    key_of,
    rq_text,
    until,
)
from tests.redis_server import RedisServer
from tests.waiting import reached

pytestmark = pytest.mark.slow

LINES = [f"line number {number}" for number in range(1_500)]
BODY = "\n".join(LINES).encode()


async def test_a_document_from_beginning_to_end(
    desk: Desk,
    model_worker: ModelWorker,
    documents_process: DocumentProcess,
    redis_server: RedisServer,
) -> None:
    document_id = await desk.submit(b"one\r\n\r\n  two\r\npoison\r\n12:30\r\nfour")
    document = await until(desk, document_id, state="done")
    assert (document.total, document.done, document.attempts) == (4, 4, 1)
    assert document.ending.failed == 1
    assert [(flaw.line, flaw.code) for flaw in document.ending.flaws] == [(4, "poison")]
    result = await desk.documents.result("default", document_id)
    assert result == b"ONE\r\n\r\n  TWO\r\npoison\r\n12:30\r\nFOUR"
    assert not redis_server.client.exists(key_of(document_id, ":source"))
    assert 0 < redis_server.client.ttl(key_of(document_id, ":result")) <= 600
    await reached(
        lambda: not redis_server.client.exists(f"rq:job:{document_id}"),
        description="the job is forgotten",
    )
    assert "two" not in documents_process.log


@pytest.mark.parametrize("whole", [True, False], ids=["with its fork", "without its fork"])
async def test_killed_mid_document_another_worker_resumes(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer, whole: bool
) -> None:
    model_worker.hold_after(600)
    # What a fork hands back is there at once, what a dead one had after a lease.
    lease_s = "3" if whole else "60"
    with document_process(redis_server.url, "--document-lease-s", lease_s) as first:
        document_id = await desk.submit(BODY)
        assert await asyncio.to_thread(model_worker.held.wait, 60)
        await until(desk, document_id, state="running")
        first.kill(whole=whole)
    with document_process(redis_server.url, "--document-lease-s", lease_s) as second:
        model_worker.resume()
        document = await until(desk, document_id, state="done")
        await reached(
            lambda: f"document {document_id}: done" in second.log,
            description="the document is said to be done",
        )
        assert document.attempts == (2 if whole else 1)
    result = await desk.documents.result("default", document_id)
    assert result == BODY.upper()
    assert len(model_worker.seen) == len(LINES)
    assert sorted(model_worker.seen) == sorted(LINES)


async def test_sigterm_hands_the_document_to_another_worker_at_once(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer
) -> None:
    model_worker.hold_after(600)
    with document_process(redis_server.url, "--document-lease-s", "60") as first:
        document_id = await desk.submit(BODY)
        assert await asyncio.to_thread(model_worker.held.wait, 60)
        first.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait) == 0
    assert desk.queue.job_ids == [document_id]
    with document_process(redis_server.url):
        model_worker.resume()
        document = await until(desk, document_id, state="done")
    assert document.attempts == 1
    assert await desk.documents.result("default", document_id) == BODY.upper()
    assert sorted(model_worker.seen) == sorted(LINES)


async def test_cancelling_stops_what_is_outstanding(
    desk: Desk,
    model_worker: ModelWorker,
    documents_process: DocumentProcess,
    redis_server: RedisServer,
) -> None:
    model_worker.hold_after(600)
    document_id = await desk.submit(BODY)
    assert await asyncio.to_thread(model_worker.held.wait, 60)
    assert await desk.documents.cancel("default", document_id)
    await reached(lambda: "cancelled" in documents_process.log, description="it is cancelled")
    model_worker.resume()
    # The worker is free again, and nothing of the old document comes in between.
    other = await desk.submit(b"next")
    await until(desk, other, state="done")
    assert model_worker.seen[-1] == "next"
    # What already lay in the ready window is begun no more.
    assert len(model_worker.seen) <= 600 + 64 + 1
    left = redis_server.client.hget("dragoman:{0}:load", "cost:small")
    assert int(left) == 0
    assert (await desk.read(document_id)).state == "cancelled"
    assert await desk.documents.result("default", document_id) is None


async def test_a_document_that_kills_its_worker_is_given_up(
    desk: Desk, documents_process: DocumentProcess, redis_server: RedisServer
) -> None:
    document_id = await desk.store(BODY)
    redis_server.client.hset(key_of(document_id), "attempts", 5)
    desk.enqueue(document_id)
    document = await until(desk, document_id, state="failed")
    assert document.ending.error.code == "worker_lost"


async def test_functions_that_are_no_tasks_are_refused(
    desk: Desk, documents_process: DocumentProcess, redis_server: RedisServer, tmp_path: Any
) -> None:
    marker = tmp_path / "proof"
    jobs = [
        desk.queue.enqueue_call("os.system", args=(f"touch {marker}",), failure_ttl=60),
        desk.queue.enqueue_call("document_worker.translation.Translator", failure_ttl=60),
    ]
    # A sound task with a callback that is none.
    document_id = await desk.store(b"12:30")
    job = desk.queue.enqueue_call(
        "translate_document", args=("default", document_id), failure_ttl=60, result_ttl=60
    )
    redis_server.client.hset(job.key, "success_callback_name", "os.abort")
    redis_server.client.hset(job.key, "failure_callback_name", "os.abort")
    document = await until(desk, document_id, state="done")
    assert document.total == 0
    for refused in jobs:
        await reached(lambda job=refused: job.is_failed, description="the job is refused")
    assert not marker.exists()
    await reached(lambda: "names no task" in documents_process.log, description="the log says why")
    assert documents_process.process.poll() is None


async def test_a_pickle_is_never_loaded(
    desk: Desk, documents_process: DocumentProcess, redis_server: RedisServer, tmp_path: Any
) -> None:
    marker = tmp_path / "proof"
    pickle = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    job = desk.queue.enqueue_call("os.getpid", failure_ttl=60)
    redis_server.client.hset(job.key, mapping={"data": zlib.compress(pickle), "meta": pickle})
    await reached(lambda: job.is_failed, description="the job is refused")
    assert not marker.exists()


async def test_no_text_is_left_behind_by_a_failure(
    desk: Desk,
    model_worker: ModelWorker,
    documents_process: DocumentProcess,
    redis_server: RedisServer,
) -> None:
    secret = "the-hidden-word"
    document_id = await desk.store(f"{secret}\n".encode() * 3)
    # A worker that finds its upload changed under it fails while it holds the text.
    redis_server.client.set(
        key_of(document_id, ":source"), f"{secret} \xff".encode("latin-1"), ex=60
    )
    desk.enqueue(document_id)
    document = await until(desk, document_id, state="failed")
    assert document.ending.error.code == "internal"
    await reached(
        lambda: "UnicodeDecodeError" in documents_process.log, description="the log names the error"
    )
    assert secret not in documents_process.log
    assert secret not in rq_text(redis_server)


async def test_redis_restarts_under_a_document(aof_server: RedisServer) -> None:
    broker = settings_for(aof_server)
    async with Desk(broker, aof_server) as desk:
        with document_process(aof_server.url) as process:
            with ModelWorker(broker) as model_worker:
                model_worker.hold_after(600)
                document_id = await desk.submit(BODY)
                assert await asyncio.to_thread(model_worker.held.wait, 60)
            aof_server.client.execute_command("WAITAOF", 1, 0, 60_000)
            aof_server.kill()
            aof_server.start()
            with ModelWorker(broker):
                await until(desk, document_id, state="done")
            assert await desk.documents.result("default", document_id) == BODY.upper()
            assert process.process.poll() is None


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--document-lease-s", "soon"), 2, "must be a whole number"),
        (("--requests-in-flight", "0"), 2, "--requests-in-flight must be between"),
        (("--rq-url", "redis+cluster://127.0.0.1:1"), 1, "cannot live on a Redis Cluster"),
        (("--rq-url", "http://127.0.0.1"), 1, "begins with 'http'"),
        (("--rq-url", "redis://127.0.0.1:1", "--connect-s", "0"), 1, "Redis does not answer"),
    ],
)
def test_errors_at_the_start_are_readable(
    redis_server: RedisServer, flags: tuple[str, ...], code: int, words: str
) -> None:
    process = DocumentProcess(redis_server.url, *flags)
    assert process.wait() == code
    assert words in process.log
    assert "Traceback" not in process.log


def test_it_stops_when_idle(documents_process: DocumentProcess) -> None:
    assert documents_process.stop() == 0
    assert not os.path.exists(f"/proc/{documents_process.process.pid}")


def test_it_stops_while_redis_is_away() -> None:
    server = RedisServer().start()
    with document_process(server.url) as process:
        server.stop()
        assert process.stop() == 0


def test_a_stop_whose_exception_gets_lost_is_noticed(redis_server: RedisServer) -> None:
    worker = DocumentWorker(redis_server.client, {}, 3)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with suppress(StopRequested):
            worker.request_stop(signal.SIGTERM, None)
        worker.work(logging_level="WARNING")  # no burst: would wait for ever
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert worker.stopping
