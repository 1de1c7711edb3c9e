"""Fixtures for every test: a real Redis, settings for it, and a check that nothing lives on."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from broker.settings import BrokerSettings
from tests.redis_server import RedisServer
from tests.redis_server import wait_until as _wait_until

os.environ["HF_HUB_OFFLINE"] = "1"
ROOT = Path(__file__).parent

# These files take longest, and begin first: with several processes, one that began last would leave
# the others without work.
LONGEST = (
    "chaos/test_chaos.py",
    "dragoman/test_stack.py",
    "document_worker/test_process.py",
    "document_worker/test_translation.py",
    "document_worker/test_bombs.py",
    "inference_worker/test_process.py",
    "chaos/test_rolling.py",
    "security/test_fuzz.py",
    "api/test_main.py",
    "api/test_connections.py",
    "broker/test_state_machine.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


# Machines that run tests are slow now and then, which is no fault of what is tested. CI always
# draws the same examples: a new one that fails belongs to whoever can look into it.
settings.register_profile(
    "dragoman",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dragoman")


@pytest.fixture(scope="session")
def _redis_process() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis_process: RedisServer) -> Iterator[RedisServer]:
    """A server without persistence, empty at the start of each test. A test that kills it starts it
    again. Fails the test if it leaves a key without TTL that the design does not call permanent."""
    _redis_process.client.flushall()
    yield _redis_process
    immortal = _redis_process.immortal_keys()
    assert not immortal, f"keys without TTL: {immortal}"


@pytest.fixture
def aof_server() -> Iterator[RedisServer]:
    """A server of the test's own that keeps its data when it is killed."""
    server = RedisServer(aof=True).start()
    yield server
    immortal = server.immortal_keys()
    server.stop()
    assert not immortal, f"keys without TTL: {immortal}"


def settings_for(server: RedisServer, **changes: Any) -> BrokerSettings:
    """Settings under which a machine that stands still for seconds changes nothing: no lease ends,
    no worker counts as dead, no call is given up. What is about that sets its own."""
    values: dict[str, Any] = {"lease_s": 30.0, "heartbeat_s": 20.0, "redis_timeout_s": 20.0}
    return BrokerSettings(**({"redis_url": server.url} | values | changes))


@pytest.fixture
def broker_settings(redis_server: RedisServer) -> BrokerSettings:
    """Patient settings for ``redis_server``."""
    return settings_for(redis_server)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """``wait_until(predicate, description=…)`` instead of sleeping."""
    return _wait_until
