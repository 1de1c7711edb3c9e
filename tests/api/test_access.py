"""Request ids, log lines without text, and answers to our own mistakes."""

import logging

import httpx
import pytest
from fastapi import FastAPI

from tests.api.stage import Worker, body

SECRET = "Geheimnis"


async def test_a_request_id_comes_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz", headers={"X-Request-Id": "trace/17"})
    assert answer.headers["x-request-id"] == "trace/17"


@pytest.mark.parametrize("given", [None, "", "x" * 129, "two words", "ümlaut"])
async def test_one_is_made_up_otherwise(client: httpx.AsyncClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given.encode("latin-1")}
    made = [(await client.get("/nowhere", headers=headers)).headers["x-request-id"] for _ in "ab"]
    assert len(set(made)) == 2
    assert all(len(id) == 16 for id in made)


async def test_a_line_for_each_request_and_never_its_text(
    client: httpx.AsyncClient, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    headers = {"X-Request-Id": "r1", "Idempotency-Key": SECRET}
    await client.post("/translation?details=true", json=body(SECRET), headers=headers)
    await client.post("/translation", json=body(SECRET, target=SECRET))
    await client.post("/translation", content=f'{{"payload":"{SECRET}"'.encode())
    await client.get(f"/{SECRET}?q={SECRET}")
    ours = [r for r in caplog.records if r.name.startswith(("dragoman", "broker", "uvicorn"))]
    lines = [record.getMessage() for record in ours]
    assert any(line.startswith("POST /translation 200 ") and "request=r1" in line for line in lines)
    assert any(line.startswith("GET other 404 ") for line in lines)
    assert SECRET not in "".join(lines)


async def test_a_mistake_of_ours_is_a_problem_too(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(app.state.service.producer, "ready", broken)
    answer = await client.get("/readyz", headers={"X-Request-Id": "r2"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "r2"
    assert SECRET not in answer.text
