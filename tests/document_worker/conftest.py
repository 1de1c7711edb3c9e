from collections.abc import AsyncIterator, Iterator

import pytest

from broker.settings import BrokerSettings
from tests.document_worker.stage import Desk, DocumentProcess, ModelWorker, document_process
from tests.redis_server import RedisServer


@pytest.fixture
async def desk(broker_settings: BrokerSettings, redis_server: RedisServer) -> AsyncIterator[Desk]:
    async with Desk(broker_settings, redis_server) as made:
        yield made


@pytest.fixture
def model_worker(broker_settings: BrokerSettings) -> Iterator[ModelWorker]:
    """Answers each text in capitals."""
    with ModelWorker(broker_settings) as worker:
        yield worker


@pytest.fixture
def documents_process(redis_server: RedisServer) -> Iterator[DocumentProcess]:
    """A document worker in a process of its own."""
    with document_process(redis_server.url) as process:
        yield process
