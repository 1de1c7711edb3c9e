"""Tests of ``api.waiting``: what ends a wait, and that a short one looks at nothing else."""

import asyncio

import pytest
from starlette.types import Message

from api import waiting
from api.service import Bell
from api.waiting import Ending, wait
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter, Watch

FOREVER_S = 60.0


class Connection:
    """A request whose caller may hang up."""

    def __init__(self) -> None:
        self.looked = asyncio.Event()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        self.looked.set()
        await self.gone.wait()
        return {"type": "http.disconnect"}


@pytest.fixture
async def watch() -> Watch:
    return Waiter(Producer(BrokerSettings(), "tests")).watching("default", "request")


async def test_news_end_a_wait_before_anybody_looks_at_the_connection(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "UNWATCHED_S", FOREVER_S)
    connection = Connection()
    asyncio.get_running_loop().call_soon(watch.tell, True)
    assert await wait(watch, watch.finished(FOREVER_S), Bell(), connection.receive) is Ending.CAME
    assert not connection.looked.is_set()


async def test_what_came_before_needs_no_wait(watch: Watch) -> None:
    watch.tell(ended=True)
    bell = Bell()
    bell.ring()
    assert await wait(watch, watch.finished(FOREVER_S), bell) is Ending.CAME


async def test_news_of_records_do_not_end_a_wait_for_the_end(watch: Watch) -> None:
    watch.tell(ended=False)
    assert await wait(watch, watch.finished(0.0), Bell()) is Ending.TIMED_OUT
    assert await wait(watch, watch.progressed(0.0), Bell()) is Ending.CAME
    assert await wait(watch, watch.progressed(0.0), Bell()) is Ending.TIMED_OUT


@pytest.mark.parametrize("early", [True, False])
async def test_the_bell_ends_a_wait(watch: Watch, early: bool) -> None:
    bell = Bell()
    if early:
        bell.ring()
    else:
        asyncio.get_running_loop().call_soon(bell.ring)
    assert await wait(watch, watch.finished(FOREVER_S), bell) is Ending.STOPPING
    assert not bell.listeners


async def test_a_caller_who_leaves_ends_a_long_wait(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "UNWATCHED_S", 0.0)
    connection = Connection()
    connection.gone.set()
    ending = await wait(watch, watch.finished(FOREVER_S), Bell(), connection.receive)
    assert ending is Ending.LEFT
    # The watch itself goes on: somebody else's wait is not ended by this.
    asyncio.get_running_loop().call_soon(watch.tell, True)
    assert await wait(watch, watch.finished(FOREVER_S), Bell()) is Ending.CAME
