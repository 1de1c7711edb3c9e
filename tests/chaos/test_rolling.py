"""Every process of a tier is replaced under load, one after the other, and no request fails."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest

from tests.chaos.cluster import Cluster, Member, Shape
from tests.chaos.ledger import Ledger
from tests.waiting import reached

CALLERS = 8
RECORDS = 4
BETWEEN = 40  # requests answered from one replacement to the next


class Balanced:
    """Callers behind a balancer: it asks who is ready, and tries the next one when nobody takes the
    connection. A request that was sent is never sent again."""

    def __init__(self, urls: list[str]) -> None:
        self.ledger = Ledger()
        self.answered = 0
        self._urls = urls
        self._ready = list(urls)
        self._numbers = itertools.count()
        self._client = httpx.AsyncClient(timeout=120)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator["Balanced"]:
        tasks = [asyncio.ensure_future(self._look())]
        tasks += [asyncio.ensure_future(self._call_on()) for _ in range(CALLERS)]
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.aclose()

    async def more(self) -> None:
        """Returns after so many more answers."""
        goal = self.answered + BETWEEN
        await reached(
            lambda: self.answered >= goal or self.ledger.violations,
            description=f"{BETWEEN} more answers",
            timeout_s=120,
        )

    async def _look(self) -> None:
        while True:
            ready = []
            for url in self._urls:
                with suppress(httpx.TransportError):
                    if (await self._client.get(f"{url}/readyz")).status_code == 200:
                        ready.append(url)
            self._ready = ready
            await asyncio.sleep(0.05)

    async def _call_on(self) -> None:
        while True:
            entry = self.ledger.open(RECORDS)
            try:
                answer = await self._post(entry.body)
            except httpx.TransportError as error:
                self.ledger.blame(entry, f"{type(error).__name__}: {error}")
                continue
            if answer.status_code == 200:
                self.ledger.check(entry, answer.json()["result"])
                self.answered += 1
            else:
                self.ledger.blame(entry, f"answered {answer.status_code}: {answer.text[:200]}")

    async def _post(self, body: object) -> httpx.Response:
        for _ in range(1_000):
            ready = self._ready or self._urls
            url = ready[next(self._numbers) % len(ready)]
            try:
                return await self._client.post(f"{url}/translation", json=body)
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
        raise httpx.ConnectError("nobody takes connections")


async def replaced(cluster: Cluster, member: Member) -> None:
    lives = member.lives
    member.send(signal.SIGTERM)
    await reached(
        lambda: member.lives > lives, description=f"{member.name} is started again", timeout_s=120
    )
    await cluster.ready()


@pytest.mark.slow
async def test_no_request_fails_while_every_process_is_replaced() -> None:
    """One API process and one worker are of another protocol version, as in a deployment. A machine
    that stands still for a while is no reason to give anything up."""
    shape = Shape(bundled=False, lease_s=15.0, hang_s=60.0, redis_timeout_s=20.0)
    cluster = Cluster(shape, "rolling")
    try:
        await cluster.start()
        async with Balanced(cluster.urls()).calling() as callers:
            for member in cluster.members:
                await callers.more()
                await replaced(cluster, member)
            await callers.more()
        assert callers.ledger.violations == []
        assert [member.lives for member in cluster.members] == [2] * len(cluster.members)
    finally:
        await cluster.stop()
    assert cluster.deaths == []
