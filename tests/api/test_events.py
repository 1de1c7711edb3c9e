"""GET /jobs/{id}/events: replay, news, the end, and coming back."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.events import bitmap, seen
from api.settings import ApiSettings
from broker.settings import BrokerSettings
from tests.api.stage import Worker, announce, body, listening
from tests.conftest import settings_for
from tests.redis_server import RedisServer


def parsed(stream: str) -> list[dict[str, Any]]:
    """The events of a stream as a browser would see them, comments left out."""
    events = []
    for block in stream.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and line[0] != ":")
        if "event" in fields:
            events.append(fields | {"data": json.loads(fields["data"])})
    return events


async def blocks(answer: httpx.Response) -> AsyncIterator[str]:
    """The blocks of a stream as they come."""
    rest = ""
    async for text in answer.aiter_text():
        rest += text
        while "\n\n" in rest:
            block, rest = rest.split("\n\n", 1)
            yield block


async def test_finished_records_are_replayed_and_the_stream_ends(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    location = (await client.post("/jobs", json=body("one", "poison"))).headers["location"]
    await client.get(f"{location}?wait=60")
    answer = await client.get(f"{location}/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    first, second, end = parsed(answer.text)
    assert (first["event"], first["data"]) == ("record", {"id": "0", "text": "eno", "index": 0})
    assert second["data"]["error"]["code"] == "poison"
    assert end["event"] == "end"
    assert (end["data"]["state"], end["data"]["done"]) == ("done", 2)


async def test_details(client: httpx.AsyncClient, worker: Worker) -> None:
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    await client.get(f"{location}?wait=60")
    events = parsed((await client.get(f"{location}/events?details=true")).text)
    assert events[0]["data"]["timings"]["inferenceMs"] == 20.0


async def test_a_client_that_comes_back_gets_only_what_it_lacks(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    texts = [f"text {index}" for index in range(40)]
    location = (await client.post("/jobs", json=body(*texts))).headers["location"]
    await client.get(f"{location}?wait=60")
    had = set(range(0, 40, 3))
    headers = {"Last-Event-ID": bitmap(had)}
    events = parsed((await client.get(f"{location}/events", headers=headers)).text)
    indexes = [event["data"]["index"] for event in events[:-1]]
    assert indexes == sorted(set(range(40)) - had)
    assert seen(events[-2]["id"]) == set(range(40))
    last = await client.get(f"{location}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert last.status_code == 204  # an EventSource that gets this comes back no more


@pytest.mark.parametrize("value", ["", "!", "7", "é", "A" * 4_000, "====", "____"])
async def test_foreign_event_ids_replay_everything(
    client: httpx.AsyncClient, worker: Worker, value: str
) -> None:
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    await client.get(f"{location}?wait=60")
    headers = {"Last-Event-ID": value.encode("latin-1")}
    answer = await client.get(f"{location}/events", headers=headers)
    assert answer.status_code == 200
    assert parsed(answer.text)[-1]["event"] == "end"


@pytest.mark.parametrize("indexes", [set(), {0}, {999}, set(range(1_000)), {3, 5, 8, 13}])
def test_bitmaps(indexes: set[int]) -> None:
    text = bitmap(indexes)
    assert seen(text) == indexes
    assert len(text) <= 168


async def test_a_cancelled_job_ends_its_stream(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    await client.delete(location)
    (end,) = parsed((await client.get(f"{location}/events")).text)
    assert end["data"]["state"] == "cancelled"


async def test_head_of_a_stream(client: httpx.AsyncClient, worker: Worker) -> None:
    worker.hold()
    location = (await client.post("/jobs", json=body("one"))).headers["location"]
    answer = await client.head(f"{location}/events")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_news_come_as_they_happen_and_silence_has_heartbeats(
    app: FastAPI, broker_settings: BrokerSettings
) -> None:
    with Worker(broker_settings, batch=1) as worker:
        worker.hold()
        async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=120) as client:
            location = (await client.post("/jobs", json=body("one", "two"))).headers["location"]
            found: list[str] = []
            steps = [1, None]  # how many records the worker may do when there was silence
            async with client.stream("GET", f"{location}/events") as answer:
                async for block in blocks(answer):
                    found.append(block)
                    told = sum("event: record" in one for one in found)
                    if block.startswith(":") and steps and told == 2 - len(steps):
                        worker.resume(steps.pop(0))
        kinds = [block.split("\n")[0] for block in found]
        assert kinds[0] == "retry: 1000"
        assert kinds[1].startswith(":")
        first, end = kinds.index("event: record"), kinds.index("event: end")
        assert any(kind.startswith(":") for kind in kinds[first:end])
        assert kinds.count("event: record") == 2
        assert end == len(kinds) - 1


async def test_a_stream_outlives_a_redis_that_comes_back(
    aof_server: RedisServer,
) -> None:
    settings = settings_for(aof_server)
    stream, killed = "", False
    app = create_app(settings, ApiSettings(events_heartbeat_s=0.2))
    with Worker(settings) as worker:
        worker.hold()
        async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=120) as client:
            location = (await client.post("/jobs", json=body("one"))).headers["location"]
            async with client.stream("GET", f"{location}/events") as answer:
                async for block in blocks(answer):
                    stream += block + "\n\n"
                    if block.startswith(":") and not killed:
                        killed = True
                        aof_server.client.execute_command("WAITAOF", 1, 0, 60_000)
                        aof_server.kill()
                        aof_server.start()
                        worker.resume()
    assert [event["event"] for event in parsed(stream)] == ["record", "end"]
