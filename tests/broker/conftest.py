from collections.abc import AsyncIterator, Iterator

import pytest

from broker.consumer import Consumer
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from tests.broker.parties import worker


@pytest.fixture
async def producer(broker_settings: BrokerSettings) -> AsyncIterator[Producer]:
    made = Producer(broker_settings, "api-1")
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
async def waiter(producer: Producer) -> AsyncIterator[Waiter]:
    made = Waiter(producer)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def consumer(broker_settings: BrokerSettings) -> Iterator[Consumer]:
    made = worker(broker_settings)
    yield made
    made.close()
