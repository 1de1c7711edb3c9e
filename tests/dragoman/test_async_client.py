"""The asynchronous client: the same conversations, driven by asyncio."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import dragoman
from dragoman import AsyncClient, Retries
from tests.dragoman.fake_service import FakeService, Scripted, problem
from tests.waiting import reached

QUICK = Retries(2, 2, first_delay_s=0.001, longest_delay_s=0.01)


@pytest.fixture
async def client(service: FakeService) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.url, retries=QUICK) as client:
        yield client


async def test_translate(client: AsyncClient) -> None:
    assert await client.translate("hello", "en", "ja") == "HELLO"
    texts = [f"text {number}" for number in range(1_200)]
    assert await client.translate(texts, "en", "ja") == [text.upper() for text in texts]


async def test_many_at_once(client: AsyncClient) -> None:
    calls = (client.translate(f"text {number}", "en", "ja") for number in range(40))
    assert await asyncio.gather(*calls) == [f"TEXT {number}" for number in range(40)]


async def test_cancelling_the_task_cancels_the_work(
    client: AsyncClient, service: FakeService
) -> None:
    service.held.clear()
    task = asyncio.create_task(client.translate("slow", "en", "ja"))
    await reached(
        lambda: service.jobs and any(seen.method == "GET" for seen in service.seen),
        description="the job is being waited for",
    )
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [job["state"] for job in service.jobs.values()] == ["cancelled"]


async def test_retries_and_errors(client: AsyncClient, service: FakeService) -> None:
    busy = Scripted(503, problem(503, "overloaded", "Later."), {"Retry-After": "0"})
    service.script.extend([busy, busy])
    assert await client.translate("hello", "en", "ja") == "HELLO"
    service.script.append(Scripted(400, problem(400, "bad", "Say it plainly.")))
    with pytest.raises(dragoman.InvalidRequest, match="plainly"):
        await client.languages()


async def test_a_job(client: AsyncClient, service: FakeService) -> None:
    job = await client.submit(["one", "two"], "en", "ja", deadline_s=60)
    assert 1 <= int(service.seen[0].headers["x-deadline-ms"]) <= 60_000
    service.jobs[job.id]["breaks"] = True
    assert [result.text async for result in job.events()] == ["ONE", "TWO"]
    assert (await job.refresh()).finished
    assert [result.text for result in await job.wait(5)] == ["ONE", "TWO"]
    assert (await client.job(job.id)).status.total == 2
    assert await client.languages() == {"en": "English", "ja": "Japanese"}
    service.jobs[job.id]["state"] = "queued"
    await job.cancel()
    with pytest.raises(dragoman.JobCancelled):
        await job.wait()
