"""Identical synchronous requests: one piece of work, and an answer of its own for every caller."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import broker.producer
from broker.settings import BrokerSettings
from tests.api.stage import Worker, body, stage
from tests.api.test_translation import Caller, ended, submitted
from tests.redis_server import RedisServer
from tests.waiting import reached

Answering = asyncio.Task[httpx.Response]


def named(*ids: str) -> dict[str, Any]:
    """The same texts under other ids."""
    sent = body("one", "two")
    for record, id in zip(sent["payload"]["records"], ids, strict=True):
        record["id"] = id
    return sent


def going(call: Coroutine[Any, Any, httpx.Response]) -> Answering:
    return asyncio.ensure_future(call)


async def waiting(server: RedisServer, request_id: str, callers: int) -> None:
    """Returns once so many callers wait for the request."""
    key = f"dragoman:{{0}}:request:default:{request_id}"
    await reached(
        lambda: server.client.hget(key, "waiters") == str(callers).encode(),
        description=f"{callers} callers wait",
    )


async def requests(server: RedisServer, count: int) -> None:
    """Returns once there are so many requests."""
    await reached(
        lambda: len(server.client.keys("dragoman:*:request:default:*")) >= count,
        description=f"{count} requests",
    )


async def joined(
    client: httpx.AsyncClient, app: FastAPI, server: RedisServer, **headers: str
) -> tuple[str, Answering, Answering]:
    """Two calls for the same work that a held worker has not read yet, and its request id."""
    first = going(client.post("/translation", json=named("a", "b")))
    request_id = await submitted(app, server)
    second = going(client.post("/translation", json=named("c", "d"), headers=headers))
    await waiting(server, request_id, 2)
    return request_id, first, second


def texts(answer: httpx.Response) -> dict[str, str]:
    return {record["id"]: record["text"] for record in answer.json()["result"]}


async def test_a_herd_is_translated_once_and_everybody_gets_their_own_ids(
    client: httpx.AsyncClient, app: FastAPI, redis_server: RedisServer, worker: Worker
) -> None:
    worker.hold()
    path = "/translation?details=true"
    first = going(client.post(path, json=named("a", "b")))
    request_id = await submitted(app, redis_server)
    herd = [going(client.post(path, json=named(f"x{i}", f"y{i}"))) for i in range(20)]
    await waiting(redis_server, request_id, 21)
    worker.resume()
    answers = await asyncio.gather(first, *herd)
    assert [texts(answer) for answer in answers] == [
        {"a": "eno", "b": "owt"},
        *({f"x{i}": "eno", f"y{i}": "owt"} for i in range(20)),
    ]
    assert [answer.json()["result"][0]["coalesced"] for answer in answers] == [0] + [2] * 20
    assert len(worker.seen) == 2
    assert "dragoman_requests_joined_total 20.0" in (await client.get("/metrics")).text


async def test_on_two_processes(
    client: httpx.AsyncClient,
    app: FastAPI,
    redis_server: RedisServer,
    broker_settings: BrokerSettings,
    worker: Worker,
) -> None:
    worker.hold()
    async with stage(broker_settings) as elsewhere:
        _, first, second = await joined(client, app, redis_server)
        third = going(elsewhere.post("/translation", json=named("e", "f")))
        await waiting(redis_server, await submitted(app, redis_server), 3)
        worker.resume()
        answers = await asyncio.gather(first, second, third)
    assert [list(texts(answer)) for answer in answers] == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert len(worker.seen) == 2


async def test_what_differs_is_not_joined(
    client: httpx.AsyncClient, worker: Worker, redis_server: RedisServer
) -> None:
    worker.hold()
    sent = [body("one"), body("one", target="de"), body("one", source="fr"), body("one", "one")]
    calls = [going(client.post("/translation", json=other)) for other in sent]
    keyed = {"Idempotency-Key": "mine"}
    calls.append(going(client.post("/translation", json=body("one"), headers=keyed)))
    await client.post("/jobs", json=body("one"))
    await requests(redis_server, 6)
    worker.resume()
    assert all(answer.status_code == 200 for answer in await asyncio.gather(*calls))


async def test_the_setting_switches_it_off(
    redis_server: RedisServer, broker_settings: BrokerSettings, worker: Worker
) -> None:
    worker.hold()
    plain = replace(broker_settings, memory=False)
    async with stage(plain) as client:
        calls = [going(client.post("/translation", json=body("one"))) for _ in range(3)]
        await requests(redis_server, 3)
        worker.resume()
        await asyncio.gather(*calls)
    assert len(worker.seen) == 3


async def test_the_work_outlives_the_caller_who_asked_first(
    client: httpx.AsyncClient,
    app: FastAPI,
    redis_server: RedisServer,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker.producer, "ABANDON_S", 0.0)
    worker.hold()
    await client.get("/languages")
    callers = [Caller(app, named("a", "b")), Caller(app, named("c", "d"))]
    calls = []
    for count, caller in enumerate(callers, 1):
        calls.append(asyncio.ensure_future(caller.call()))
        request_id = await submitted(app, redis_server)
        await waiting(redis_server, request_id, count)
    third = going(client.post("/translation", json=named("e", "f")))
    await waiting(redis_server, request_id, 3)
    for caller in callers:
        caller.hang_up()
    await asyncio.gather(*calls)
    await waiting(redis_server, request_id, 1)
    worker.resume()
    assert texts(await third) == {"e": "eno", "f": "owt"}


async def test_the_work_is_dropped_with_the_last_caller(
    client: httpx.AsyncClient,
    app: FastAPI,
    redis_server: RedisServer,
    worker: Worker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker.producer, "ABANDON_S", 0.0)
    worker.hold()
    await client.get("/languages")
    callers = [Caller(app, named("a", "b")), Caller(app, named("c", "d"))]
    calls = []
    for count, caller in enumerate(callers, 1):
        calls.append(asyncio.ensure_future(caller.call()))
        request_id = await submitted(app, redis_server)
        await waiting(redis_server, request_id, count)
    for caller in callers:
        caller.hang_up()
    await asyncio.gather(*calls)
    assert [caller.status for caller in callers] == [499, 499]
    assert (await ended(app, request_id)).state == "cancelled"


async def test_cancelling_one_request_cancels_nobody_elses(
    client: httpx.AsyncClient, app: FastAPI, redis_server: RedisServer, worker: Worker
) -> None:
    worker.hold()
    request_id, first, second = await joined(client, app, redis_server)
    third = going(client.post("/translation", json=named("e", "f")))
    await waiting(redis_server, request_id, 3)
    await client.delete(f"/jobs/{request_id}")
    assert (await first).status_code == 502
    await requests(redis_server, 2)
    worker.resume()
    assert texts(await second) == {"c": "eno", "d": "owt"}
    assert texts(await third) == {"e": "eno", "f": "owt"}
    assert len(redis_server.client.keys("dragoman:*:request:default:*")) == 2  # shared once more


async def test_a_caller_that_stops_waiting_gets_a_location_of_its_own(
    client: httpx.AsyncClient, app: FastAPI, redis_server: RedisServer, worker: Worker
) -> None:
    worker.hold()
    request_id, first, second = await joined(client, app, redis_server, prefer="wait=1")
    answer = await second
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    assert not answer.headers["location"].endswith(request_id)
    await waiting(redis_server, request_id, 1)
    await client.delete(answer.headers["location"])
    worker.resume()
    assert texts(await first) == {"a": "eno", "b": "owt"}


async def test_a_deadline_is_the_callers_own(
    client: httpx.AsyncClient, app: FastAPI, redis_server: RedisServer, worker: Worker
) -> None:
    worker.hold()
    headers = {"X-Deadline-Ms": "50"}
    request_id, first, second = await joined(client, app, redis_server, **headers)
    answer = await second
    assert (answer.status_code, answer.json()["code"]) == (504, "expired")
    assert [record["id"] for record in answer.json()["result"]] == ["c", "d"]
    await waiting(redis_server, request_id, 1)
    worker.resume()
    assert texts(await first) == {"a": "eno", "b": "owt"}


async def test_a_joined_request_that_redis_loses_is_queued_again(
    client: httpx.AsyncClient, app: FastAPI, redis_server: RedisServer, worker: Worker
) -> None:
    worker.hold()
    _, first, second = await joined(client, app, redis_server)
    redis_server.client.flushall()
    worker.resume()
    answers = await asyncio.gather(first, second)
    assert [list(texts(answer)) for answer in answers] == [["a", "b"], ["c", "d"]]
