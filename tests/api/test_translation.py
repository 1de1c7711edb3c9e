"""POST /translation: ids and order, waits, Locations, and callers that go away."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

import broker.producer
from api.problems import MEDIA_TYPE
from broker.settings import BrokerSettings
from broker.wire import RequestStatus
from tests.api.stage import Worker, announce, body, listening, stage
from tests.redis_server import RedisServer
from tests.waiting import reached


async def test_the_answer_has_the_same_ids_in_the_same_order_and_nothing_else(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    ids: list[Any] = ["b", 7, "b", "", -1, "日本"]
    records = [{"id": id, "text": f"text {index}"} for index, id in enumerate(ids)]
    sent = {"payload": {"fromLang": "en", "records": records, "toLang": "ja"}}
    answer = await client.post("/translation", json=sent)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    expected = [{"id": record["id"], "text": record["text"][::-1]} for record in records]
    assert answer.json() == {"result": expected}


async def test_blank_texts_line_breaks_and_control_tokens_are_text(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    texts = ["", " \n\t", "one\n\ntwo\r\n", "__ja__ </s>", "\u0000", "👩‍👩‍👧"]
    answer = await client.post("/translation", json=body(*texts))
    found = [record["text"] for record in answer.json()["result"]]
    assert found == [text[::-1] if text.strip() else text for text in texts]


async def test_a_thousand_records(client: httpx.AsyncClient, worker: Worker) -> None:
    answer = await client.post("/translation", json=body(*(f"text {i}" for i in range(1_000))))
    result = answer.json()["result"]
    assert [record["id"] for record in result] == [str(index) for index in range(1_000)]
    assert result[999]["text"] == "999 txet"


async def test_a_long_text(client: httpx.AsyncClient, worker: Worker) -> None:
    answer = await client.post("/translation", json=body("a" + "ß" * 9_999))
    assert answer.json()["result"][0]["text"] == "ß" * 9_999 + "a"


async def test_one_failed_record_leaves_its_neighbours_alone(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    answer = await client.post("/translation", json=body("one", "poison", "two"))
    assert answer.status_code == 200
    result = answer.json()["result"]
    assert result[1]["error"]["code"] == "poison"
    assert "text" not in result[1]
    assert [result[0]["text"], result[2]["text"]] == ["eno", "owt"]


@pytest.mark.parametrize(
    ("texts", "status"), [(["poison"], 502), (["late", "late"], 504), (["late", "poison"], 502)]
)
async def test_no_text_at_all_is_502_or_504(
    client: httpx.AsyncClient, worker: Worker, texts: list[str], status: int
) -> None:
    answer = await client.post("/translation", json=body(*texts))
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert [record["id"] for record in answer.json()["result"]] == ["0", "1"][: len(texts)]
    assert all("error" in record for record in answer.json()["result"])


async def test_details(client: httpx.AsyncClient, worker: Worker) -> None:
    answer = await client.post("/translation?details=true", json=body("one", "poison"))
    first, second = answer.json()["result"]
    assert first == {
        "id": "0",
        "text": "eno",
        "index": 0,
        "status": "done",
        "model": "small",
        "timings": {"queueMs": 1.5, "tokenizeMs": 0.5, "inferenceMs": 20.0},
        "attempts": 1,
        "sentences": 2,
        "cached": 0,
        "coalesced": 0,
        "warnings": ["unknown piece"],
    }
    assert second["status"] == "failed"
    assert second["model"] == "small"


async def test_the_lane_is_interactive_for_a_little_synchronous_text(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    async def lane(path: str, texts: list[str], **headers: str) -> str:
        worker.seen.clear()
        answer = await client.post(path, json=body(*texts), headers=headers)
        location = answer.headers.get("location")
        if location:
            await client.get(f"{location}?wait=60")
        return str(worker.seen[0].record.lane)

    assert await lane("/translation", ["x"] * 16) == "interactive"
    assert await lane("/translation", ["x" * 4_000]) == "interactive"
    assert await lane("/translation", ["x"], prefer="wait=5") == "interactive"
    assert await lane("/translation", ["x"] * 17) == "bulk"
    assert await lane("/translation", ["x" * 3_999, "xx"]) == "bulk"
    assert await lane("/translation", ["x"], prefer="respond-async") == "bulk"
    assert await lane("/jobs", ["x"]) == "bulk"


async def test_deadline_and_trace_context_go_with_the_records(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await client.post(
        "/translation", json=body("x"), headers={"X-Deadline-Ms": "9000", "traceparent": trace}
    )
    await client.post("/translation", json=body("x"))
    location = (await client.post("/jobs", json=body("x"))).headers["location"]
    await client.get(f"{location}?wait=60")
    allowed = [d.record.deadline_ms - d.record.accepted_ms for d in worker.seen]
    assert allowed == [9_000, 600_000, 86_400_000]
    assert [d.record.traceparent for d in worker.seen] == [trace, "", ""]


async def test_prefer_wait_gives_the_location_of_the_same_request(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    worker.hold()
    answer = await client.post("/translation", json=body("one"), headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    location = answer.headers["location"]
    assert location == f"/jobs/{answer.json()['id']}"
    assert answer.json()["state"] in ("queued", "running")
    worker.resume()
    job = (await client.get(f"{location}?wait=60")).json()
    assert job["result"] == [{"id": "0", "text": "eno"}]
    assert [d.record.request for d in worker.seen] == [job["id"]]  # nothing was done twice


async def test_prefer_wait_that_is_long_enough_answers_in_place(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    answer = await client.post("/translation", json=body("one"), headers={"Prefer": "wait=60"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=60")


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0"])
async def test_respond_async_answers_at_once(
    client: httpx.AsyncClient, broker_settings: BrokerSettings, prefer: str
) -> None:
    announce(broker_settings)
    answer = await client.post("/translation", json=body("one"), headers={"Prefer": prefer})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, prefer)
    job = (await client.get(answer.headers["location"])).json()
    assert (job["state"], job["total"], job["done"], job["result"]) == ("queued", 1, 0, [])


async def test_the_longest_wait_ends_in_504_with_a_location(
    broker_settings: BrokerSettings,
) -> None:
    with Worker(broker_settings) as worker:
        worker.hold()
        async with stage(broker_settings, sync_wait_s=0.2) as client:
            answer = await client.post("/translation", json=body("one"))
            assert answer.status_code == 504
            assert answer.headers["content-type"] == MEDIA_TYPE
            assert answer.json()["code"] == "still_working"
            location = answer.headers["location"]
            worker.resume()
            job = (await client.get(f"{location}?wait=60")).json()
            assert job["result"] == [{"id": "0", "text": "eno"}]
            assert len(worker.seen) == 1


async def test_a_deadline_ends_the_wait_too(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    answer = await client.post("/translation", json=body("x"), headers={"X-Deadline-Ms": "100"})
    assert answer.status_code == 504


async def test_a_repeated_idempotency_key_is_the_same_request(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/translation", json=body("one"), headers=headers)
    second = client.post("/translation", json=body("one"), headers=headers)
    answers = [*await asyncio.gather(first, second)]
    answers.append(await client.post("/translation", json=body("one"), headers=headers))
    assert [answer.json() for answer in answers] == [{"result": [{"id": "0", "text": "eno"}]}] * 3
    assert len(worker.seen) == 1


async def test_layout_does_not_make_another_body(client: httpx.AsyncClient, worker: Worker) -> None:
    headers = {"Idempotency-Key": "once", "Content-Type": "application/json"}
    for content in (json.dumps(body("ü")), json.dumps(body("ü"), indent=2, ensure_ascii=False)):
        answer = await client.post("/translation", content=content.encode(), headers=headers)
        assert answer.status_code == 200
    assert len(worker.seen) == 1


@pytest.mark.parametrize("path", ["/translation", "/jobs"])
async def test_an_idempotency_key_with_another_body_is_422(
    client: httpx.AsyncClient, worker: Worker, path: str
) -> None:
    headers = {"Idempotency-Key": "once"}
    assert (await client.post(path, json=body("one"), headers=headers)).status_code in (200, 202)
    answer = await client.post(path, json=body("two"), headers=headers)
    assert answer.status_code == 422
    assert answer.json()["field"] == "Idempotency-Key"


class Caller:
    """One ASGI request whose caller can hang up."""

    def __init__(self, app: FastAPI, sent: dict[str, Any], *headers: tuple[str, str]) -> None:
        self._app = app
        self._content: bytes | None = json.dumps(sent).encode()
        self._gone = asyncio.Event()
        self.status = 0
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": "/translation",
            "raw_path": b"/translation",
            "root_path": "",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "app": app,
        }

    async def _receive(self) -> dict[str, Any]:
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)

    def hang_up(self) -> None:
        self._gone.set()

    async def call(self) -> None:
        await self._app(self._scope, self._receive, self._send)


async def submitted(app: FastAPI, server: RedisServer) -> str:
    """The id of the one request there is, once it is there."""
    keys = await reached(
        lambda: asyncio.to_thread(server.client.keys, "dragoman:*:request:default:*"),
        description="a request is there",
    )
    return str(keys[0].decode().rpartition(":")[2])


async def ended(app: FastAPI, request_id: str) -> RequestStatus:
    async def status() -> RequestStatus | None:
        found: RequestStatus = await app.state.service.producer.status("default", request_id)
        return found if found.finished else None

    found: RequestStatus = await reached(status, description="the request has ended")
    return found


async def test_work_nobody_waits_for_is_cancelled(
    app: FastAPI,
    client: httpx.AsyncClient,
    broker_settings: BrokerSettings,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker.producer, "ABANDON_S", 0.1)
    announce(broker_settings)
    caller = Caller(app, body("one"))
    calling = asyncio.ensure_future(caller.call())
    request_id = await submitted(app, redis_server)
    caller.hang_up()
    await calling
    assert caller.status == 499
    assert (await ended(app, request_id)).state == "cancelled"


async def test_work_with_an_idempotency_key_outlives_its_caller(
    app: FastAPI,
    client: httpx.AsyncClient,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    worker: Worker,
) -> None:
    monkeypatch.setattr(broker.producer, "ABANDON_S", 0.1)
    worker.hold()
    await client.get("/languages")
    caller = Caller(app, body("one"), ("Idempotency-Key", "k"))
    calling = asyncio.ensure_future(caller.call())
    request_id = await submitted(app, redis_server)
    caller.hang_up()
    await calling
    key = f"dragoman:{{0}}:request:default:{request_id}"
    assert redis_server.client.hmget(key, "waiters", "kept") == [b"1", b"1"]
    worker.resume()
    assert (await ended(app, request_id)).state == "done"


async def test_a_location_keeps_the_work(
    client: httpx.AsyncClient, redis_server: RedisServer, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    for prefer in ("wait=1", "respond-async"):
        answer = await client.post("/translation", json=body("x"), headers={"Prefer": prefer})
        key = f"dragoman:{{0}}:request:default:{answer.json()['id']}"
        assert redis_server.client.hget(key, "kept") == b"1"


async def test_a_request_that_redis_loses_is_queued_again(
    client: httpx.AsyncClient, worker: Worker, app: FastAPI, redis_server: RedisServer
) -> None:
    worker.hold()
    calling = asyncio.ensure_future(client.post("/translation", json=body("one")))
    await submitted(app, redis_server)
    redis_server.client.flushall()
    worker.resume()
    assert (await calling).json() == {"result": [{"id": "0", "text": "eno"}]}


async def test_cancelling_wakes_the_one_who_waits(
    client: httpx.AsyncClient, app: FastAPI, worker: Worker, redis_server: RedisServer
) -> None:
    worker.hold()
    calling = asyncio.ensure_future(client.post("/translation", json=body("one", "two")))
    await client.delete(f"/jobs/{await submitted(app, redis_server)}")
    answer = await calling
    assert answer.status_code == 502
    assert [record["error"]["code"] for record in answer.json()["result"]] == ["cancelled"] * 2
    worker.resume()


async def test_a_caller_that_hangs_up_leaves_its_request(
    app: FastAPI, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    announce(broker_settings)
    content = json.dumps(body("one")).encode()
    head = f"POST /translation HTTP/1.1\r\nHost: api\r\nContent-Length: {len(content)}\r\n\r\n"
    async with listening(app) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(head.encode() + content)
        request_id = await submitted(app, redis_server)
        key = f"dragoman:{{0}}:request:default:{request_id}"
        assert redis_server.client.hget(key, "waiters") == b"1"
        writer.close()
        await reached(
            lambda: redis_server.client.hget(key, "waiters") == b"0", description="nobody waits"
        )
