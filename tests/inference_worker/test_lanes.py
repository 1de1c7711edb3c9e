"""Neither lane starves the other, nor one tenant the other: a real worker process on a real server,
with far more work in it than is waited for."""

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.producer import Producer
from broker.settings import BrokerSettings
from tests.inference_worker.processes import WorkerProcess, paced
from tests.inference_worker.requests import finished, submission

pytestmark = pytest.mark.slow
FLOOD = 3_000  # records; at 16 a step some 190 steps


@pytest.fixture
async def producer(broker_settings: BrokerSettings) -> AsyncIterator[Producer]:
    made = Producer(broker_settings, "tests")
    await made.prepare()
    yield made
    await made.close()


@pytest.fixture
def process(broker_settings: BrokerSettings) -> Iterator[WorkerProcess]:
    with paced(broker_settings, pace_s=0.02) as worker:
        yield worker.ready()


@pytest.mark.parametrize(("lane", "flooded"), [("bulk", "interactive"), ("interactive", "bulk")])
async def test_a_lane_is_served_while_the_other_is_full(
    process: WorkerProcess, producer: Producer, lane: str, flooded: str
) -> None:
    for start in range(0, FLOOD, 1_000):
        part = [f"Flood {n}." for n in range(start, start + 1_000)]
        await producer.submit(submission(producer, part, lane=flooded))
    few = submission(producer, [f"One of a few {n}." for n in range(30)], lane=lane)
    await producer.submit(few)
    assert all(outcome.text for outcome in await finished(producer, few))
    left = (await producer.load("small")).cost_by_lane[flooded]
    assert left > FLOOD  # characters: it is far from done


@pytest.mark.parametrize("lane", ["bulk", "interactive"])
async def test_a_tenant_is_served_while_another_floods_its_lane(
    process: WorkerProcess, producer: Producer, lane: str
) -> None:
    for start in range(0, FLOOD, 1_000):
        part = [f"Flood {n}." for n in range(start, start + 1_000)]
        await producer.submit(submission(producer, part, lane=lane, tenant="flood"))
    for _ in range(3):
        one = submission(producer, ["Good morning."], lane=lane)
        await producer.submit(one)
        assert (await finished(producer, one))[0].text == "Good morning."
    assert (await producer.load("small")).cost_by_lane[lane] > FLOOD
