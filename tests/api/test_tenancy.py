"""What belongs to one tenant is not there for another: every route that takes an id answers a
foreign one as it answers one that never was, with the same calls to Redis. And what each uses."""

from collections.abc import AsyncIterator
from datetime import datetime, tzinfo
from pathlib import Path

import httpx
import pytest
import redis

import api.usage
import broker.producer
from api.app import create_app
from api.settings import ApiSettings
from broker.keys import new_request_id
from broker.settings import BrokerSettings
from broker.tenants import KeySettings, Quota, Tenants, read_secret
from tests.api.stage import Worker, body, living, stage
from tests.api.test_openapi import told
from tests.redis_server import RedisServer

ROUTES = [
    ("GET", "/jobs/{id}"), ("GET", "/jobs/{id}?wait=0.2"), ("DELETE", "/jobs/{id}"),
    ("GET", "/jobs/{id}/events"), ("GET", "/documents/{id}"), ("GET", "/documents/{id}/result"),
    ("DELETE", "/documents/{id}"),
]  # fmt: skip

Headers = dict[str, str]


class Noon(datetime):
    """A clock that stands still, so that neither the day nor the month ends within a test."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Noon":
        return cls(2026, 2, 28, 12, tzinfo=tz)


@pytest.fixture
def _noon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (broker.producer, api.usage):
        monkeypatch.setattr(module, "datetime", Noon)


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("s" * 40)
    return str(path)


@pytest.fixture
def keys(broker_settings: BrokerSettings, secret_file: str) -> dict[str, Headers]:
    with Tenants(broker_settings) as tenants:
        secret = read_secret(secret_file)
        return {
            name: {"Authorization": f"Bearer {tenants.create(secret, name)}"}
            for name in ("ours", "theirs")
        }


@pytest.fixture
async def client(
    broker_settings: BrokerSettings, secret_file: str, worker: Worker
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        broker_settings, ApiSettings(), key_settings=KeySettings(key_secret_file=secret_file)
    )
    async with living(app) as client:
        yield client


async def make(client: httpx.AsyncClient, headers: Headers, path: str) -> str:
    """The id of a job or a document of the caller's, on which nobody works any more."""
    if path.startswith("/jobs"):
        answer = await client.post("/jobs", json=body("one"), headers=headers)
    else:
        files = {"file": ("notes.txt", b"one", "text/plain")}
        data = {"source": "en", "target": "ja"}
        answer = await client.post("/documents", files=files, data=data, headers=headers)
    assert answer.status_code == 202, answer.text
    name = str(answer.json()["id"])
    if path.startswith("/jobs"):
        ended = await client.get(f"/jobs/{name}?wait=60", headers=headers)
        assert ended.json()["state"] == "done"
    return name


class Wire:
    """The commands that a server got about an id."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._client = redis.Redis(port=server.port, socket_timeout=60)

    def __enter__(self) -> "Wire":
        self._monitor = self._client.monitor().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def commands_about(self, name: str) -> list[str]:
        """Since the last call, with the id taken out."""
        self._server.client.echo("that is all")
        found = []
        while True:
            line = self._monitor.next_command()["command"]
            if line == "ECHO that is all":
                return found
            if name in line:
                found.append(line.replace(name, "ID"))


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_foreign_id_is_a_missing_one(
    method: str,
    path: str,
    client: httpx.AsyncClient,
    keys: dict[str, Headers],
    redis_server: RedisServer,
) -> None:
    foreign, missing = await make(client, keys["theirs"], path), new_request_id(0)
    await client.get("/languages", headers=keys["ours"])  # the key is believed from here on
    answers, commands = [], []
    with Wire(redis_server) as wire:
        for name in (foreign, missing):
            answer = await client.request(method, path.format(id=name), headers=keys["ours"])
            told_headers = {
                name: value for name, value in answer.headers.items() if name != "x-request-id"
            }
            answers.append((answer.status_code, told_headers, answer.content))
            commands.append(wire.commands_about(name))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert commands[0] == commands[1]
    assert commands[0]
    assert all(":theirs:" not in command for command in commands[0])
    theirs = await client.get(path.format(id=foreign).partition("?")[0], headers=keys["theirs"])
    assert theirs.status_code in (200, 409), "it is still there for its owner"


async def test_an_idempotency_key_is_the_tenants_own(
    client: httpx.AsyncClient, keys: dict[str, Headers]
) -> None:
    ids = []
    for tenant, text in (("ours", "one"), ("theirs", "two"), ("ours", "one")):
        headers = keys[tenant] | {"Idempotency-Key": "the same"}
        ids.append((await client.post("/jobs", json=body(text), headers=headers)).json()["id"])
    assert ids[0] == ids[2] != ids[1]


async def test_identical_requests_of_two_tenants_do_not_meet(
    client: httpx.AsyncClient, keys: dict[str, Headers], worker: Worker
) -> None:
    for tenant in ("ours", "theirs"):
        answer = await client.post("/translation", json=body("same"), headers=keys[tenant])
        assert answer.status_code == 200
    assert [delivery.record.tenant for delivery in worker.seen] == ["ours", "theirs"]


async def test_a_tenants_quota_goes_with_its_work(
    client: httpx.AsyncClient,
    keys: dict[str, Headers],
    broker_settings: BrokerSettings,
    redis_server: RedisServer,
    worker: Worker,
) -> None:
    with Tenants(broker_settings) as tenants:
        tenants.set_quota("ours", Quota(outstanding_chars=5, weight=4))
    worker.hold()
    first = await client.post("/jobs", json=body("x" * 9), headers=keys["ours"])
    assert first.status_code == 202  # with nothing outstanding anything goes
    request = f"dragoman:{{0}}:request:ours:{first.json()['id']}"
    assert float(redis_server.client.hget(request, "weight")) == 4
    answer = await client.post("/jobs", json=body("y"), headers=keys["ours"])
    assert (answer.status_code, answer.json()["code"]) == (429, "tenant_overloaded")
    assert (await client.post("/jobs", json=body("y"), headers=keys["theirs"])).status_code == 202
    worker.resume()


async def test_a_document_is_charged_and_carries_the_quota(
    client: httpx.AsyncClient,
    keys: dict[str, Headers],
    broker_settings: BrokerSettings,
    redis_server: RedisServer,
) -> None:
    with Tenants(broker_settings) as tenants:
        tenants.set_quota("ours", Quota(chars_per_minute=3, outstanding_chars=50, weight=2))
    name = await make(client, keys["ours"], "/documents")
    upload = redis_server.client.hget(f"dragoman:{{0}}:document:ours:{name}", "upload")
    assert b'"weight":2.0' in upload
    assert b'"tenant_cap":50' in upload
    files = {"file": ("notes.txt", b"one", "text/plain")}
    data = {"source": "en", "target": "ja"}
    answer = await client.post("/documents", files=files, data=data, headers=keys["ours"])
    assert (answer.status_code, answer.json()["limit"]) == (429, "chars_per_minute")
    told("/documents", "post", answer)


@pytest.mark.usefixtures("_noon")
async def test_usage_is_the_tenants_own(
    client: httpx.AsyncClient,
    keys: dict[str, Headers],
    broker_settings: BrokerSettings,
    worker: Worker,
) -> None:
    with Tenants(broker_settings) as tenants:
        tenants.set_quota("ours", Quota(requests_per_s=100, chars_per_minute=1000))
    await client.post("/translation", json=body("one", "three"), headers=keys["ours"])
    await client.post("/translation", json=body("bad", source="xx"), headers=keys["ours"])
    worker.hold()
    await client.post("/jobs", json=body("seven"), headers=keys["ours"])
    for _ in range(2):
        headers = keys["theirs"] | {"Idempotency-Key": "k"}
        await client.post("/jobs", json=body("ten"), headers=headers)
    answer = await client.get("/usage", headers=keys["ours"])
    told("/usage", "get", answer)
    used = {"requests": 2, "records": 3, "characters": 13}
    assert answer.json() == {
        "tenant": "ours",
        "today": used,
        "month": used,
        "outstandingChars": 5,
        "limits": {
            "requestsPerSecond": 100.0,
            "charsPerMinute": 1000,
            "outstandingChars": broker_settings.max_tenant_chars,
            "weight": 1.0,
        },
    }
    theirs = (await client.get("/usage", headers=keys["theirs"])).json()
    assert theirs["today"] == {"requests": 1, "records": 1, "characters": 3}
    assert theirs["limits"]["requestsPerSecond"] is None
    worker.resume()


@pytest.mark.usefixtures("_noon")
async def test_without_keys_everybody_is_one_tenant(
    broker_settings: BrokerSettings, worker: Worker
) -> None:
    async with stage(broker_settings) as client:
        await client.post("/translation", json=body("one"))
        usage = (await client.get("/usage")).json()
        assert (usage["tenant"], usage["today"]["characters"]) == ("default", 3)
