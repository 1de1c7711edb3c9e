"""What is refused at the door, and how that is told."""

from dataclasses import replace

import pytest

from broker.settings import BrokerSettings
from tests.api.stage import announce, body, stage
from tests.api.test_openapi import told
from tests.redis_server import RedisServer


@pytest.mark.parametrize(
    ("caps", "status", "code"),
    [
        ({"max_outstanding_chars": 100}, 503, "overloaded"),
        ({"max_tenant_chars": 100}, 429, "tenant_overloaded"),
    ],
)
async def test_above_a_cap_requests_are_refused_with_the_wait(
    broker_settings: BrokerSettings,
    redis_server: RedisServer,
    caps: dict[str, int],
    status: int,
    code: str,
) -> None:
    small = replace(broker_settings, **caps)
    announce(small)
    redis_server.client.hset("dragoman:{0}:load", "rate:small", 10)
    async with stage(small) as client:
        assert (await client.post("/jobs", json=body("x" * 90))).status_code == 202
        for path, wait_s in (("/translation", 12.0), ("/jobs", 27.0)):
            answer = await client.post(path, json=body("y" * 90))
            assert answer.status_code == status
            assert answer.json()["code"] == code
            assert answer.json()["estimatedSeconds"] == wait_s
            assert 1 <= int(answer.headers["retry-after"]) <= 2 * wait_s
            told(path, "post", answer)


async def test_what_cannot_end_in_time_is_refused_at_once(
    broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    announce(broker_settings)
    measured = {"rate:small": 10, "full:small": 60_000}
    redis_server.client.hset("dragoman:{0}:load", mapping=measured)
    async with stage(broker_settings) as client:
        assert (await client.post("/jobs", json=body("x" * 90))).status_code == 202
        soon = {"X-Deadline-Ms": "5000"}
        answer = await client.post("/translation", json=body("y" * 90), headers=soon)
        assert (answer.status_code, answer.json()["code"]) == (503, "too_late")
        assert answer.json()["deadlineSeconds"] == 5
        assert 8 <= int(answer.headers["retry-after"]) <= 16
        told("/translation", "post", answer)
        later = {"X-Deadline-Ms": "60000"}
        assert (await client.post("/jobs", json=body("y"), headers=later)).status_code == 202
