"""The stage of the API tests as fixtures."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from api.app import create_app
from api.settings import ApiSettings
from broker.settings import BrokerSettings
from tests.api.stage import Worker, living


@pytest.fixture
def worker(broker_settings: BrokerSettings) -> Iterator[Worker]:
    """A live worker that turns texts around."""
    with Worker(broker_settings) as worker:
        yield worker


@pytest.fixture
def app(broker_settings: BrokerSettings) -> FastAPI:
    return create_app(broker_settings, ApiSettings(events_heartbeat_s=0.2))


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app`` without a network between them."""
    async with living(app) as client:
        yield client
