"""Tests of ``api.gate``: what is refused before any route sees it."""

import asyncio

import httpx
import pytest

from api.app import create_app
from api.connections import MAX_HEAD_BYTES
from api.settings import ApiSettings
from broker.settings import BrokerSettings
from tests.api.stage import Worker, body, living
from tests.waiting import reached


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/healthz", {"X-Padding": "x" * MAX_HEAD_BYTES}),
        ("/healthz", {f"X-{number}": "x" * 100 for number in range(400)}),
        (f"/healthz?{'x' * MAX_HEAD_BYTES}", {}),
        (f"/{'x' * MAX_HEAD_BYTES}", {}),
    ],
)
async def test_a_head_that_is_too_large(
    client: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    answer = await client.get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (431, "head_too_large")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x" * 50 not in answer.text


async def test_a_head_that_just_fits(client: httpx.AsyncClient) -> None:
    headers = {"X-Padding": "x" * (MAX_HEAD_BYTES - 1_000)}
    assert (await client.get("/healthz", headers=headers)).status_code == 200


async def test_too_many_requests_leave_probes_alone(
    broker_settings: BrokerSettings, worker: Worker
) -> None:
    app = create_app(broker_settings, ApiSettings(max_connections=64))
    async with living(app) as client:
        worker.hold()
        calls = [
            asyncio.ensure_future(client.post("/translation", json=body(f"t{number}")))
            for number in range(64)
        ]

        async def crowded() -> bool:
            shown = (await client.get("/metrics")).text
            return "dragoman_http_requests_in_flight 65.0" in shown

        await reached(crowded, description="64 calls are in flight")
        refused = await client.get("/languages")
        assert (refused.status_code, refused.json()["code"]) == (503, "too_many_requests")
        assert refused.headers["retry-after"] == "1"
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        worker.resume()
        assert {(await call).status_code for call in calls} == {200}
        assert (await client.get("/languages")).status_code == 200
