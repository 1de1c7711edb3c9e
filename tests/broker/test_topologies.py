"""A real cluster of three primaries and a real Sentinel, by their URLs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from broker import functions
from broker.consumer import Consumer
from broker.errors import BrokerUnavailable
from broker.memory import Memory
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from tests.broker.parties import MODEL, beat, serve, submission
from tests.broker.test_memory import of
from tests.redis_server import RedisServer, free_port, wait_until


@pytest.fixture
def cluster() -> Iterator[list[RedisServer]]:
    buses = [free_port() for _ in range(3)]  # by default the port + 10,000, which may be too high
    servers = [
        RedisServer(extra=("--cluster-enabled", "yes", "--cluster-port", str(bus))).start()
        for bus in buses
    ]
    for number, server in enumerate(servers):
        first, last = number * 16_384 // 3, (number + 1) * 16_384 // 3 - 1
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        server.client.execute_command("CLUSTER", "MEET", "127.0.0.1", servers[0].port, buses[0])
    for server in servers:
        wait_until(
            lambda server=server: formed(server.client.execute_command("CLUSTER INFO")),
            description="the cluster forms",
        )
    yield servers
    for server in servers:
        server.stop()


def formed(info: dict[str, str]) -> bool:
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


async def test_three_shards_on_three_primaries(cluster: list[RedisServer]) -> None:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
    settings = BrokerSettings(redis_url=f"redis+cluster://{hosts}", shards=3, redis_timeout_s=20.0)
    assert len(functions.init(settings)) == 3
    await round_trips(settings, requests=30)
    assert all(server.client.dbsize() > 5 for server in cluster)  # each has its share of the work


def test_the_memory_is_spread_over_the_primaries(cluster: list[RedisServer]) -> None:
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
    memory = Memory(
        BrokerSettings(
            redis_url=f"redis+cluster://{hosts}",
            shards=3,
            redis_timeout_s=20.0,
            memory_sentences=90,
        )
    )
    translations = of(*(f"text {at}" for at in range(60)), tenant="a") | of("one", tenant="b")
    memory.keep(translations)
    assert memory.find(translations) == translations
    assert all(server.client.dbsize() > 5 for server in cluster)
    memory.keep(of(*(f"more {at}" for at in range(200)), tenant="a"))  # the oldest go first
    held = memory.find(translations | of(*(f"more {at}" for at in range(200)), tenant="a"))
    assert 60 <= len(held) <= 91
    memory.forget("a")
    assert memory.find(translations) == of("one", tenant="b")
    memory.close()


async def round_trips(settings: BrokerSettings, requests: int) -> None:
    producer = Producer(settings, "api-1")
    await producer.prepare()
    waiter = Waiter(producer)
    await waiter.start()
    consumer = Consumer(settings, MODEL)
    consumer.prepare()
    beat(consumer)
    for number in range(requests):
        request = submission(producer, [f"text {number}", "other"], idempotency=f"key{number}")
        with waiter.watching("default", request.id, request) as watch:
            await producer.submit(request)
            while not await watch.finished(0.01):
                serve(consumer)
        view = await producer.view("default", request.id)
        assert view is not None
        assert view[1][0].text == f"text {number}"[::-1]
    doomed = submission(producer)
    await producer.submit(doomed)
    status = await producer.cancel("default", doomed.id)
    assert status is not None
    assert status.state == "cancelled"
    consumer.discard(consumer.read(8, 8, 0))
    assert (await producer.load(MODEL)).outstanding_cost == 0
    assert len(await producer.workers(MODEL)) == 1
    consumer.retire()
    consumer.close()
    await waiter.stop()
    await producer.close()


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[str, RedisServer, RedisServer, RedisServer]]:
    """A URL, its primary, the primary's replica, and the Sentinel, which is told to be patient: a
    primary on a busy machine is not gone."""
    primary = RedisServer().start()
    replica = RedisServer(extra=("--replicaof", f"127.0.0.1 {primary.port}")).start()
    port = free_port()
    (tmp_path / "sentinel.conf").write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 600000\nsentinel failover-timeout main 2000\n"
    )
    guard = RedisServer(sentinel=tmp_path / "sentinel.conf", port=port).start()
    wait_until(
        lambda: guard.client.execute_command("SENTINEL", "REPLICAS", "main"),
        description="the Sentinel finds the replica",
    )
    yield f"redis+sentinel://127.0.0.1:{port}/main", primary, replica, guard
    for server in (guard, replica, primary):
        server.stop()


async def test_a_sentinel_url_follows_the_primary(
    sentinel: tuple[str, RedisServer, RedisServer, RedisServer],
) -> None:
    url, primary, replica, guard = sentinel
    settings = BrokerSettings(redis_url=url, redis_timeout_s=20.0)
    await round_trips(settings, requests=3)
    primary.kill()
    patience = ("SENTINEL", "SET", "main", "down-after-milliseconds")
    guard.client.execute_command(*patience, 500)
    wait_until(
        lambda: replica.client.role()[0] == b"master",
        description="the replica is promoted",
        timeout_s=120,
    )
    guard.client.execute_command(*patience, 600_000)
    wait_until(lambda: _ready(settings), description="the URL leads to it", timeout_s=120)
    await round_trips(settings, requests=3)


def _ready(settings: BrokerSettings) -> Any:
    try:
        return functions.init(settings)
    except (BrokerUnavailable, redis.RedisError):
        return None
