"""Fixtures for every test: a real Redis, settings for it, and a check that nothing lives on."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from broker.settings import BrokerSettings
from tests.redis_server import RedisServer
from tests.redis_server import wait_until as _wait_until

os.environ["HF_HUB_OFFLINE"] = "1"

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
    values: dict[str, Any] = {"redis_url": server.url, "lease_s": 0.4, "heartbeat_s": 0.2}
    return BrokerSettings(**(values | changes))


@pytest.fixture
def broker_settings(redis_server: RedisServer) -> BrokerSettings:
    """Settings for ``redis_server`` with short leases and heartbeats."""
    return settings_for(redis_server)


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """``wait_until(predicate, description=…)`` instead of sleeping."""
    return _wait_until
