"""Work that nobody wants costs no model time: a real worker process, whose engine ends the process
when it meets a certain sentence, and a real API in front of it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

import broker.producer
from api.app import create_app
from api.settings import ApiSettings
from broker.keys import Keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from tests.api.stage import body, listening
from tests.conftest import settings_for
from tests.inference_worker.processes import WorkerProcess, paced
from tests.inference_worker.requests import nothing_left, submission
from tests.redis_server import RedisServer, wait_until

pytestmark = pytest.mark.slow
DEADLY = "This sentence ends the worker."
KEYS = Keys("0")


@pytest.fixture
def broker_settings(redis_server: RedisServer) -> BrokerSettings:
    """With a worker that soon reports what it has done."""
    return settings_for(redis_server, heartbeat_s=1.0)


@pytest.fixture
async def producer(broker_settings: BrokerSettings) -> AsyncIterator[Producer]:
    made = Producer(broker_settings, "tests")
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
def process(broker_settings: BrokerSettings, redis_server: RedisServer) -> Iterator[WorkerProcess]:
    """A worker that is stopped: what is submitted now waits until ``SIGCONT``."""
    with paced(broker_settings, fault="crash", text=DEADLY) as worker:
        worker.ready()
        wait_until(
            lambda: redis_server.client.hexists(KEYS.load(), "window:small"),
            description="the worker has reported",
        )
        worker.send(signal.SIGSTOP)
        yield worker


@pytest.fixture
async def service(
    broker_settings: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FastAPI, str]]:
    """An app behind a real socket, and its URL. Who leaves is not waited for."""
    monkeypatch.setattr(broker.producer, "ABANDON_S", 0.01)
    app = create_app(broker_settings, ApiSettings())
    async with listening(app) as url:
        yield app, url


async def only_the_wanted_was_translated(
    process: WorkerProcess, producer: Producer, server: RedisServer
) -> None:
    """Lets the worker go on, gives it something harmless, and looks that it met nothing else."""
    wanted = submission(producer, ["Good morning."])
    await producer.submit(wanted)
    process.send(signal.SIGCONT)
    await asyncio.to_thread(
        wait_until, lambda: nothing_left(server), description="nothing is outstanding"
    )
    found = await producer.view("default", wanted.id)
    assert found is not None
    assert found[0].state == "done"
    assert process.running, process.output
    process.send(signal.SIGTERM)
    assert await asyncio.to_thread(process.ended) == 0


async def gone(producer: Producer, server: RedisServer) -> None:
    """Returns once a request was cancelled."""

    def cancelled() -> bool:
        names = server.client.scan_iter(KEYS.request("default", "*"))
        return any(server.client.hget(name, "state") == b"cancelled" for name in names)

    await asyncio.to_thread(wait_until, cancelled, description="the request is cancelled")


async def in_flight(server: RedisServer, waiters: int) -> None:
    """Returns once a request has so many callers."""

    def counted() -> bool:
        names = server.client.scan_iter(KEYS.request("default", "*"))
        return any(server.client.hget(name, "waiters") == b"%d" % waiters for name in names)

    await asyncio.to_thread(wait_until, counted, description=f"{waiters} callers wait")


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
async def test_cancelled_work_never_enters_the_engine(
    process: WorkerProcess, producer: Producer, redis_server: RedisServer, lane: str
) -> None:
    doomed = submission(producer, [DEADLY] * 50, lane=lane)
    await producer.submit(doomed)
    # One is in the window, for begin to find out; the others are in the backlog.
    assert redis_server.client.xlen(KEYS.queue("small", lane)) == 1
    await producer.cancel("default", doomed.id)
    await only_the_wanted_was_translated(process, producer, redis_server)


async def test_what_is_late_never_enters_the_engine(
    process: WorkerProcess, producer: Producer, redis_server: RedisServer
) -> None:
    late = submission(producer, [DEADLY] * 50, deadline_ms=1)
    await producer.submit(late)
    await only_the_wanted_was_translated(process, producer, redis_server)
    found = await producer.view("default", late.id)
    assert found is not None
    assert {outcome.error and outcome.error.code for outcome in found[1].values()} == {"expired"}


async def test_work_whose_caller_hung_up_never_enters_the_engine(
    process: WorkerProcess,
    producer: Producer,
    redis_server: RedisServer,
    service: tuple[FastAPI, str],
) -> None:
    async with httpx.AsyncClient(base_url=service[1], timeout=120) as client:
        calling = asyncio.ensure_future(client.post("/translation", json=body(*[DEADLY] * 16)))
        await in_flight(redis_server, 1)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    await gone(producer, redis_server)
    await only_the_wanted_was_translated(process, producer, redis_server)


async def test_joined_work_is_dropped_when_the_last_caller_hung_up(
    process: WorkerProcess,
    producer: Producer,
    redis_server: RedisServer,
    service: tuple[FastAPI, str],
) -> None:
    async with httpx.AsyncClient(base_url=service[1], timeout=120) as client:
        calls = []
        for callers in (1, 2):
            calls.append(asyncio.ensure_future(client.post("/translation", json=body(DEADLY))))
            await in_flight(redis_server, callers)
        calls[0].cancel()
        await in_flight(redis_server, 1)  # the other one still wants it
        calls[1].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await gone(producer, redis_server)
    await only_the_wanted_was_translated(process, producer, redis_server)


async def test_joined_work_is_translated_once(
    process: WorkerProcess,
    producer: Producer,
    redis_server: RedisServer,
    service: tuple[FastAPI, str],
) -> None:
    async with httpx.AsyncClient(base_url=service[1], timeout=120) as client:
        calls = []
        for callers in range(1, 6):
            calls.append(asyncio.ensure_future(client.post("/translation", json=body("The same."))))
            await in_flight(redis_server, callers)
        process.send(signal.SIGCONT)
        answers = await asyncio.gather(*calls)
    assert {answer.json()["result"][0]["text"] for answer in answers} == {"The same."}

    def reported() -> int:
        """Nothing as long as the worker, which was stopped, counts as gone."""
        for name in redis_server.client.scan_iter(KEYS.worker("*")):
            return int(redis_server.client.hget(name, "completed") or 0)
        return 0

    done = await asyncio.to_thread(wait_until, reported, description="the worker has reported")
    assert done == 1
