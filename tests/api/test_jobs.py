"""Jobs: submit, read, wait, cancel, from any API process."""

import asyncio

import httpx
import pytest

from api.app import create_app
from api.settings import ApiSettings
from broker.keys import Keys
from broker.settings import BrokerSettings
from tests.api.stage import Worker, announce, body, living, stage
from tests.redis_server import RedisServer
from tests.waiting import reached


async def test_a_job_from_beginning_to_end(client: httpx.AsyncClient, worker: Worker) -> None:
    worker.hold()
    accepted = await client.post("/jobs", json=body("one", "poison", "three"))
    assert accepted.status_code == 202
    ticket = accepted.json()
    assert set(ticket) == {"id", "state", "total", "done", "estimatedSeconds"}
    assert (ticket["state"], ticket["total"], ticket["done"]) == ("queued", 3, 0)
    assert accepted.headers["location"] == f"/jobs/{ticket['id']}"

    queued = (await client.get(accepted.headers["location"])).json()
    assert (queued["state"], queued["result"]) == ("queued", [])
    worker.resume()
    answer = await client.get(f"{accepted.headers['location']}?wait=60")
    assert answer.headers["cache-control"] == "no-store"
    job = answer.json()
    assert (job["state"], job["done"], job["failed"]) == ("done", 3, 1)
    assert (job["fromLang"], job["toLang"], job["model"]) == ("en", "ja", "small")
    assert job["createdAt"] < job["deadlineAt"]
    assert job["estimatedSeconds"] == 0
    assert [record.get("text") for record in job["result"]] == ["eno", None, "eerht"]


async def test_results_so_far_are_there_before_the_end(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    with Worker(broker_settings, batch=2) as worker:
        worker.hold_after(2)
        location = (await client.post("/jobs", json=body("a1", "b2", "c3"))).headers["location"]
        assert await asyncio.to_thread(worker.held.wait, 60)
        job = (await client.get(f"{location}?details=true")).json()
        assert (job["state"], job["done"]) == ("running", 2)
        assert [(r["index"], r["text"]) for r in job["result"]] == [(0, "1a"), (1, "2b")]
        worker.resume()
        assert (await client.get(f"{location}?wait=60")).json()["done"] == 3


async def test_all_records_failed_is_failed(client: httpx.AsyncClient, worker: Worker) -> None:
    location = (await client.post("/jobs", json=body("poison", "late"))).headers["location"]
    answer = await client.get(f"{location}?wait=60")
    assert answer.status_code == 200
    assert answer.json()["state"] == "failed"
    assert [r["error"]["code"] for r in answer.json()["result"]] == ["poison", "expired"]


async def test_a_result_that_cannot_be_read_is_an_error_of_its_record(
    client: httpx.AsyncClient, worker: Worker, redis_server: RedisServer
) -> None:
    location = (await client.post("/jobs", json=body("one", "two"))).headers["location"]
    await client.get(f"{location}?wait=60")
    key = Keys("0").request("default", location.removeprefix("/jobs/"))
    redis_server.client.hset(key, "0", "{not json")
    answer = await client.get(location)
    assert answer.status_code == 200
    damaged, sound = answer.json()["result"]
    assert (damaged["error"]["code"], sound["text"]) == ("internal", "owt")
    assert "send the record again" in damaged["error"]["detail"]


async def in_flight(client: httpx.AsyncClient, calls: int) -> None:
    """Returns once so many calls are being answered, that for the metrics among them."""

    async def counted() -> bool:
        return f"in_flight {calls}.0" in (await client.get("/metrics")).text

    await reached(counted, description=f"{calls} calls in flight")


async def test_a_long_poll_ends_in_time(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    answer = await client.get(f"{location}?wait=0.1")
    assert (answer.status_code, answer.json()["state"]) == (200, "queued")


async def test_a_long_poll_on_another_process_is_woken(
    client: httpx.AsyncClient, worker: Worker, broker_settings: BrokerSettings
) -> None:
    worker.hold()
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    async with stage(broker_settings) as other:
        polling = asyncio.ensure_future(other.get(f"{location}?wait=60"))
        await in_flight(other, 2)
        worker.resume()
        assert (await polling).json()["state"] == "done"


async def test_delete_cancels_at_once_on_any_process(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    location = (await client.post("/jobs", json=body("one", "two"))).headers["location"]
    polling = asyncio.ensure_future(client.get(f"{location}?wait=60"))
    async with stage(broker_settings) as other:
        answer = await other.delete(location)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert (await polling).json()["state"] == "cancelled"
    assert (await client.delete(location)).json()["state"] == "cancelled"


async def test_delete_leaves_a_job_that_has_ended(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    await client.get(f"{location}?wait=60")
    assert (await client.delete(location)).json()["state"] == "done"
    assert (await client.get(location)).json()["result"] == [{"id": "0", "text": "eno"}]


async def test_an_idempotency_key_gives_the_same_job_on_both_routes(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    headers = {"Idempotency-Key": "order-66"}
    first = await client.post("/jobs", json=body("one"), headers=headers)
    await client.get(f"{first.headers['location']}?wait=60")
    again = await client.post("/jobs", json=body("one"), headers=headers)
    assert again.status_code == 202
    assert again.json() | {"estimatedSeconds": 0} == {
        "id": first.json()["id"],
        "state": "done",
        "total": 1,
        "done": 1,
        "estimatedSeconds": 0,
    }
    answer = await client.post("/translation", json=body("one"), headers=headers)
    assert answer.json() == {"result": [{"id": "0", "text": "eno"}]}
    prefer = headers | {"Prefer": "respond-async"}
    answer = await client.post("/translation", json=body("one"), headers=prefer)
    assert answer.headers["location"] == first.headers["location"]
    assert len(worker.seen) == 1


@pytest.mark.parametrize("path", ["?wait=soon", "?details=perhaps", "/events?details=perhaps"])
async def test_bad_queries(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(f"/jobs/x{path}")
    assert answer.status_code == 400
    assert answer.json()["field"].startswith("query.")
    assert "soon" not in answer.text
    assert "perhaps" not in answer.text


async def test_a_long_poll_ends_when_the_process_is_asked_to_stop(
    broker_settings: BrokerSettings,
) -> None:
    announce(broker_settings)
    app = create_app(broker_settings, ApiSettings())
    async with living(app) as client:
        location = (await client.post("/jobs", json=body("one"))).headers["location"]
        polling = asyncio.ensure_future(client.get(f"{location}?wait=60"))
        waiting = asyncio.ensure_future(client.post("/translation", json=body("two")))
        await in_flight(client, 3)
        app.state.service.drain(0.1)
        assert (await polling).json()["state"] == "queued"
        answer = await waiting
        assert (answer.status_code, answer.json()["code"]) == (503, "draining")
        assert (await client.get(answer.headers["location"])).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
