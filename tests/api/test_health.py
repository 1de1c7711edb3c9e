"""Liveness and readiness."""

import httpx
import pytest
from fastapi import FastAPI

from broker.settings import BrokerSettings
from tests.api.stage import Worker, announce, stage
from tests.conftest import settings_for
from tests.redis_server import RedisServer, closed_port
from tests.waiting import reached


async def test_alive_and_ready(client: httpx.AsyncClient, worker: Worker) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.head("/healthz")).status_code == 200
    assert (await client.get("/readyz")).json() == {"status": "ready", "workers": 1}
    assert (await client.get("/readyz?workers=1")).status_code == 200
    answer = await client.get("/readyz?workers=2")
    assert (answer.status_code, answer.json()["workers"]) == (503, 1)


async def test_ready_without_a_worker_unless_one_is_asked_for(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    assert (await client.get("/readyz")).json() == {"status": "ready", "workers": 0}
    answer = await client.get("/readyz?workers=1")
    assert answer.status_code == 503
    assert "dragoman-worker" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["workers=x", "workers=-1", "workers=", "workers=1&workers=1"])
async def test_bad_queries(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/readyz?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, "query.workers")


async def test_an_app_starts_without_redis_and_becomes_ready() -> None:
    server = RedisServer()
    settings = settings_for(server)
    try:
        async with stage(settings) as client:
            assert (await client.get("/healthz")).status_code == 200
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "broker_not_ready")
            server.start()

            async def ready() -> bool:
                assert (await client.get("/healthz")).status_code == 200
                return (await client.get("/readyz")).status_code == 200

            await reached(ready, description="the app is ready")
    finally:
        server.stop()


async def test_no_server_at_all_is_not_ready() -> None:
    settings = BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0")
    async with stage(settings) as client:
        assert (await client.get("/readyz")).status_code == 503


async def test_functions_that_were_flushed_are_loaded_again(
    client: httpx.AsyncClient, app: FastAPI, redis_server: RedisServer
) -> None:
    redis_server.client.function_flush("SYNC")
    assert (await client.get("/readyz")).status_code == 200
