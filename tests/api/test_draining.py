"""A process that was told to stop goes on for a while, and sends its callers elsewhere."""

import asyncio
import signal

import httpx
import pytest

from tests.api.stage import Worker, announce, api_process, body
from tests.conftest import settings_for
from tests.redis_server import RedisServer
from tests.waiting import reached

pytestmark = pytest.mark.slow

ONE_CALL = {"Connection": "close"}  # each on a connection of its own: any process may take it
LONG = ("--drain-s", "600", "--grace-s", "1200")


async def drained(client: httpx.AsyncClient) -> None:
    """Returns once every process behind the port says that it is stopping: one of two that takes
    none of 32 connections is not to be expected."""

    async def stopping() -> bool:
        answers = [await client.get("/readyz", headers=ONE_CALL) for _ in range(32)]
        return all(answer.status_code == 503 for answer in answers)

    await reached(stopping, description="every process is stopping")


@pytest.mark.parametrize("processes", ["1", "2"])
async def test_requests_that_come_after_the_signal_are_answered(
    redis_server: RedisServer, processes: str
) -> None:
    settings = settings_for(redis_server)
    with (
        Worker(settings),
        api_process(redis_server.url, *LONG, "--processes", processes) as process,
    ):
        async with httpx.AsyncClient(base_url=process.url, timeout=120) as client:
            before = await client.post("/translation", json=body("one"))
            assert "connection" not in before.headers
            process.signal(signal.SIGTERM)
            await drained(client)
            answers = await asyncio.gather(
                *(client.post("/translation", json=body(f"t{n}")) for n in range(20))
            )
        assert [answer.status_code for answer in answers] == [200] * 20
        assert {answer.headers["connection"] for answer in answers} == {"close"}
        process.signal(signal.SIGTERM)  # the second one closes the port at once
        assert await asyncio.to_thread(process.wait) == 0
        assert "Traceback" not in process.log


async def test_the_port_closes_by_itself(redis_server: RedisServer) -> None:
    announce(settings_for(redis_server))
    with api_process(redis_server.url, "--drain-s", "0.5") as process:
        process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0
