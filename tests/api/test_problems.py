"""The table of exceptions, the HTTP errors that are not ours, and Redis away."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from api.problems import MEDIA_TYPE, problem_of, retry_s
from broker.errors import (
    BrokerMisconfigured,
    BrokerUnavailable,
    IdempotencyConflict,
    Overloaded,
    TenantOverloaded,
    TooLate,
)
from tests.api.stage import Worker, body
from tests.redis_server import RedisServer


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Overloaded(1e9, 5e8), 503, "3600"),
        (BrokerUnavailable("gone"), 503, "1"),
        (BrokerMisconfigured("eviction"), 503, "3600"),
        (IdempotencyConflict("used"), 422, None),
        (RuntimeError("Geheimnis"), 500, None),
    ],
)
def test_exceptions_become_problems(error: Exception, status: int, retry_after: str | None) -> None:
    problem = problem_of(error)
    assert problem.status == status
    assert problem.headers.get("Retry-After") == retry_after
    assert "Geheimnis" not in problem.detail
    response = problem.response()
    assert response.media_type == MEDIA_TYPE


@pytest.mark.parametrize(
    ("error", "status", "code", "members"),
    [
        (Overloaded(12.24, 3.0), 503, "overloaded", {"estimatedSeconds": 12.2}),
        (Overloaded(None), 503, "overloaded", {}),
        (TenantOverloaded(7.0, 0.1), 429, "tenant_overloaded", {"estimatedSeconds": 7.0}),
        (
            *(TooLate(9.0, 4.0, 5.0), 503, "too_late"),
            {"estimatedSeconds": 9.0, "deadlineSeconds": 5.0},
        ),
    ],
)
def test_a_refusal_tells_the_wait_and_when_to_come_back(
    error: Overloaded, status: int, code: str, members: dict[str, float]
) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code, problem.members) == (status, code, members)
    assert f"again in {problem.headers['Retry-After']} s." in problem.detail
    if isinstance(error, TooLate):
        assert "deadline of 5 s" in problem.detail
        assert "X-Deadline-Ms" in problem.detail


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (Overloaded(60.0, 10.0), 11, 60),  # when there is room, until the present work is done
        (Overloaded(1.0, 10.0), 11, 20),  # a tenant without much of its own, the service full
        (Overloaded(0.01, 0.001), 1, 2),
        (Overloaded(None), 6, 15),
    ],
)
def test_who_is_refused_together_comes_back_apart(error: Overloaded, least: int, most: int) -> None:
    told = {retry_s(error) for _ in range(2_000)}
    assert (min(told), max(told)) == (least, most)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nowhere", 404, "unknown_path", None),
        ("GET", "/translation/", 404, "unknown_path", None),
        ("GET", "/assets/nothing.js", 404, "unknown_path", None),
        ("GET", "/docs/assets/nothing.js", 404, "unknown_path", None),
        ("GET", "/translation", 405, "wrong_method", "POST"),
        ("PUT", "/jobs", 405, "wrong_method", "POST"),
        ("POST", "/jobs/x", 405, "wrong_method", "DELETE, GET, HEAD"),
        ("POST", "/languages", 405, "wrong_method", "GET, HEAD"),
        ("BREW", "/healthz", 405, "wrong_method", "GET, HEAD"),
    ],
)
async def test_paths_and_methods(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["code"] == code
    assert answer.headers.get("allow") == allow


async def test_unknown_malformed_and_foreign_ids_get_the_same_answer(
    client: httpx.AsyncClient, app: FastAPI, worker: Worker
) -> None:
    from tests.broker.parties import submission

    producer = app.state.service.producer
    foreign = submission(producer, tenant="somebody else", kept=True)
    await producer.submit(foreign)
    ids = [producer.new_request_id(), "no-id", foreign.id, foreign.id.upper(), "x" * 3000, "%ff"]
    for suffix in ("", "?wait=5", "/events"):
        answers = [await client.get(f"/jobs/{id}{suffix}") for id in ids]
        assert {answer.status_code for answer in answers} == {404}
        assert len({answer.content for answer in answers}) == 1
    answers = [await client.delete(f"/jobs/{id}") for id in ids]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert (await producer.status("somebody else", foreign.id)).state != "cancelled"


async def test_redis_down_is_503_and_nobody_waits_for_it(
    client: httpx.AsyncClient, worker: Worker, redis_server: RedisServer
) -> None:
    job = (await client.post("/jobs", json=body("x"))).headers["location"]
    await client.get("/languages")
    redis_server.kill()
    try:
        for method, path, sent in [
            ("POST", "/translation", body("x")),
            ("POST", "/jobs", body("x")),
            ("GET", job, None),
            ("GET", f"{job}?wait=300", None),
            ("GET", f"{job}/events", None),
            ("DELETE", job, None),
            ("GET", "/readyz", None),
        ]:
            async with asyncio.timeout(120):  # for the wait that was asked for nobody waits
                answer = await client.request(method, path, json=sent)
            assert answer.status_code == 503, path
            assert answer.headers["content-type"] == MEDIA_TYPE
        assert (await client.get("/healthz")).status_code == 200
        assert "dragoman_broker_up 0" in (await client.get("/metrics")).text
    finally:
        redis_server.start()
