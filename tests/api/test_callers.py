"""Keys at the door: who is let in, as whom, how often, and what nobody learns."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api import callers
from api.app import create_app
from api.settings import ApiSettings
from broker.errors import BrokerMisconfigured
from broker.settings import BrokerSettings
from broker.tenants import KeySettings, Quota, Tenants, key_id, read_secret
from tests.api.stage import Worker, announce, body, living
from tests.api.test_openapi import told
from tests.redis_server import RedisServer, closed_port
from tests.waiting import reached

Until = Callable[..., Any]
SECRET = "the secret of a server, forty chars long"


@pytest.fixture
def secret_file(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return str(path)


@pytest.fixture
def make_key(broker_settings: BrokerSettings, secret_file: str) -> Callable[[str], str]:
    def make(tenant: str) -> str:
        with Tenants(broker_settings) as tenants:
            return tenants.create(read_secret(secret_file), tenant)

    return make


@asynccontextmanager
async def guarded(
    broker: BrokerSettings, secret_file: str, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """The client of an app that asks for keys."""
    app = create_app(
        broker, ApiSettings(**settings), key_settings=KeySettings(key_secret_file=secret_file)
    )
    async with living(app) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def set_quota(broker: BrokerSettings, tenant: str, **quota: Any) -> None:
    with Tenants(broker) as tenants:
        tenants.set_quota(tenant, Quota(**quota))


async def test_a_key_opens_every_route_either_way(
    broker_settings: BrokerSettings, secret_file: str, make_key: Callable[[str], str]
) -> None:
    key = make_key("acme")
    with Worker(broker_settings):
        async with guarded(broker_settings, secret_file) as client:
            for headers in (bearer(key), {"X-API-Key": key}, {"Authorization": f"bearer  {key} "}):
                answer = await client.post("/translation", json=body("one"), headers=headers)
                assert answer.json() == {"result": [{"id": "0", "text": "eno"}]}
            basic = {"Authorization": "Basic YTpi", "X-API-Key": key}
            assert (await client.get("/languages", headers=basic)).status_code == 200


CLOSED = [
    ("POST", "/translation"), ("POST", "/jobs"), ("GET", "/jobs/x"), ("DELETE", "/jobs/x"),
    ("GET", "/jobs/x/events"), ("POST", "/documents"), ("GET", "/documents/x"),
    ("DELETE", "/documents/x"), ("GET", "/documents/x/result"), ("GET", "/languages"),
    ("GET", "/usage"),
]  # fmt: skip
OPEN = ["/healthz", "/readyz", "/metrics", "/", "/assets/page.js", "/docs", "/openapi.json"]


async def test_without_a_key_only_what_holds_no_work_answers(
    broker_settings: BrokerSettings, secret_file: str
) -> None:
    async with guarded(broker_settings, secret_file) as client:
        served = (await client.get("/openapi.json")).json()
        described = {
            (method.upper(), path.replace("{id}", "x")): operation["security"]
            for path, item in served["paths"].items()
            for method, operation in item.items()
        }
        assert {place for place, security in described.items() if security} == set(CLOSED)
        OpenAPIV31SpecValidator(served).validate()
        for method, path in CLOSED:
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_key"), path
            assert answer.headers["www-authenticate"] == 'Bearer realm="dragoman"'
            told(path.replace("/x", "/{id}"), method.lower(), answer)
        for path in OPEN:
            assert (await client.get(path)).status_code == 200, path
        assert (await client.head("/languages")).status_code == 401


async def test_metrics_may_be_closed(
    broker_settings: BrokerSettings, secret_file: str, make_key: Callable[[str], str]
) -> None:
    async with guarded(broker_settings, secret_file, metrics_open=False) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=bearer(make_key("a")))).status_code == 200
        served = (await client.get("/openapi.json")).json()
        assert served["paths"]["/metrics"]["get"]["security"]


async def test_a_wrong_key_is_a_wrong_key(
    broker_settings: BrokerSettings, secret_file: str, make_key: Callable[[str], str]
) -> None:
    key = make_key("acme")
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    unknown = "dgm_" + "0" * 12 + key[16:]
    bodies = set()
    async with guarded(broker_settings, secret_file) as client:
        for wrong in (other, unknown, key[:-1], "nonsense", key + " x", "ü" * 20, "k" * 5000):
            headers = {"X-API-Key": wrong.encode()}
            answer = await client.get("/languages", headers=headers)
            assert answer.status_code == 401, wrong
            assert 'error="invalid_token"' in answer.headers["www-authenticate"]
            assert wrong not in answer.text
            bodies.add(answer.content)
    assert len(bodies) == 1


async def test_a_key_made_under_another_secret_opens_nothing(
    broker_settings: BrokerSettings, secret_file: str
) -> None:
    with Tenants(broker_settings) as tenants:
        key = tenants.create(b"whoever can write to Redis makes this up", "acme")
    async with guarded(broker_settings, secret_file) as client:
        assert (await client.get("/languages", headers=bearer(key))).status_code == 401


async def test_a_revoked_key_dies_within_seconds_and_a_new_one_lives(
    broker_settings: BrokerSettings,
    secret_file: str,
    make_key: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announce(broker_settings)
    monkeypatch.setattr(callers, "BELIEVED_S", 0.2)
    key = make_key("acme")
    async with guarded(broker_settings, secret_file) as client:
        assert (await client.get("/languages", headers=bearer(key))).status_code == 200
        with Tenants(broker_settings) as tenants:
            tenants.revoke(key_id(key) or "")

        async def refused() -> bool:
            return (await client.get("/languages", headers=bearer(key))).status_code == 401

        await reached(refused, description="the key is believed no more")
        fresh = make_key("acme")
        assert (await client.get("/languages", headers=bearer(fresh))).status_code == 200


async def test_redis_is_asked_once_for_many_calls_of_a_key(
    broker_settings: BrokerSettings,
    secret_file: str,
    make_key: Callable[[str], str],
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announce(broker_settings)
    monkeypatch.setattr(callers, "BELIEVED_S", 600.0)
    key = make_key("acme")
    async with guarded(broker_settings, secret_file) as client:
        redis_server.client.config_resetstat()
        calls = [client.get("/languages", headers=bearer(key)) for _ in range(50)]
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}
        wrong = bearer("dgm_" + "0" * 12 + key[16:])
        calls = [client.get("/languages", headers=wrong) for _ in range(50)]
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {401}
        looked_up = redis_server.client.info("commandstats")["cmdstat_hget"]["calls"]
    assert looked_up == 3  # a key, its tenant's quota, a key that is not there


async def test_what_is_believed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MOST_BELIEVED", 3)
    memory = callers.Memory()
    for number in range(5):
        memory.believe(str(number), None, number)
    memory.believe("2", None, 9)
    assert list(memory) == ["3", "4", "2"]


async def test_too_many_calls_are_told_when_to_come_back(
    broker_settings: BrokerSettings, secret_file: str, make_key: Callable[[str], str]
) -> None:
    set_quota(broker_settings, "acme", requests_per_s=0.01)
    announce(broker_settings)
    key, other = make_key("acme"), make_key("other")
    async with guarded(broker_settings, secret_file) as client:
        assert (await client.get("/languages", headers=bearer(key))).status_code == 200
        answer = await client.get("/languages", headers=bearer(key))
        assert answer.status_code == 429
        assert answer.json()["limit"] == "requests_per_s"
        assert 90 <= int(answer.headers["retry-after"]) <= 100
        told("/languages", "get", answer)
        assert (await client.get("/languages", headers=bearer(other))).status_code == 200


async def test_too_much_text_is_told_when_to_come_back(
    broker_settings: BrokerSettings, secret_file: str, make_key: Callable[[str], str]
) -> None:
    set_quota(broker_settings, "acme", chars_per_minute=10)
    key = make_key("acme")
    with Worker(broker_settings) as worker:
        async with guarded(broker_settings, secret_file) as client:
            first = await client.post("/translation", json=body("x" * 10), headers=bearer(key))
            assert first.status_code == 200
            for path in ("/translation", "/jobs"):
                answer = await client.post(path, json=body("yy"), headers=bearer(key))
                assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
                assert answer.json()["limit"] == "chars_per_minute"
                assert 1 <= int(answer.headers["retry-after"]) <= 12
                told(path, "post", answer)
        assert [delivery.record.text for delivery in worker.seen] == ["x" * 10]


async def test_redis_away_is_no_wrong_key(secret_file: str) -> None:
    broker = BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0", redis_timeout_s=0.2)
    async with guarded(broker, secret_file) as client:
        key = "dgm_" + "0" * 12 + "_" + "x" * 43
        answer = await client.get("/languages", headers=bearer(key))
        assert (answer.status_code, answer.json()["code"]) == (503, "broker_unavailable")


async def test_keys_and_secret_are_in_no_log_line(
    broker_settings: BrokerSettings,
    secret_file: str,
    make_key: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    redis_server: RedisServer,
) -> None:
    caplog.set_level(logging.DEBUG)
    key = make_key("acme")
    async with guarded(broker_settings, secret_file) as client:
        for headers in (bearer(key), {"X-API-Key": key}, bearer(key[:-1])):
            await client.get("/languages", headers=headers)
        redis_server.client.function_flush()
        await client.post("/translation", json=body("one"), headers=bearer(key))
        assert any(" tenant=acme " in line for line in (r.getMessage() for r in caplog.records)), (
            "whose call it was is in the log"
        )
    assert caplog.records
    logged = "".join(record.getMessage() for record in caplog.records) + caplog.text
    assert key[18:-1] not in logged
    assert SECRET not in logged


def test_a_secret_that_cannot_be_read_stops_the_app(
    broker_settings: BrokerSettings, tmp_path: Path
) -> None:
    with pytest.raises(BrokerMisconfigured, match="--key-secret-file"):
        create_app(
            broker_settings,
            ApiSettings(),
            key_settings=KeySettings(key_secret_file=str(tmp_path / "none")),
        )
