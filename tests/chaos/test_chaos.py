"""A minute of it, as ``make chaos`` runs it for longer."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.keys import Keys
from tests.chaos import audit
from tests.chaos.faults import ENDING, KINDS, schedule
from tests.chaos.ledger import Ledger
from tests.chaos.partition import Partition
from tests.chaos.worker import MODEL
from tests.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
SECONDS = "60"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_every_fault_breaks_no_promise() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--seconds", SECONDS, "--seed", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(run.stdout)  # pytest shows it when something is wrong
    assert run.returncode == 0
    assert "every promise was kept" in run.stdout


def test_a_seed_makes_the_same_faults_again() -> None:
    first = schedule(7, 60.0, 2.5)
    assert schedule(7, 60.0, 2.5) == first
    assert schedule(8, 60.0, 2.5) != first
    assert {fault.kind for fault in first} == set(KINDS)
    assert {fault.kind for fault in first[-2:]} == set(ENDING)  # and nothing soon after
    assert schedule(7, 30.0, 2.5) == first[: len(schedule(7, 30.0, 2.5))]


class Found:
    """The part of a cluster that an audit of Redis asks for."""

    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis


def test_the_audit_finds_what_is_left_in_redis(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SETTLE_S", 0.0)
    keys, client = Keys("0"), redis_server.client
    client.xgroup_create(keys.queue(MODEL, "bulk"), "workers", id="0", mkstream=True)
    client.xgroup_create(keys.queue(MODEL, "interactive"), "workers", id="0", mkstream=True)
    found = Found(redis_server)
    assert asyncio.run(audit.settled(found)) == []  # type: ignore[arg-type]
    client.xadd(keys.queue(MODEL, "bulk"), {"record": "{}"})
    client.zadd(keys.backlog(MODEL, "interactive"), {"{}": 1})
    client.hset(keys.load(), f"cost:{MODEL}", 5)
    client.xadd(keys.dead(), {"record": '{"text":"1 1 here"}'})
    client.set("dragoman:{0}:worker:x", "", ex=60)
    left = asyncio.run(audit.settled(found))  # type: ignore[arg-type]
    assert left == [
        "1 in the interactive backlog",
        "1 in the bulk window",
        f"outstanding cost:{MODEL} is 5",
    ]
    ledger = Ledger()
    poisoned = ledger.open(1, poison="hang")
    assert audit.dead_letters(found, ledger) == [  # type: ignore[arg-type]
        "a dead letter nobody planted: 1 1 here",
        f"no dead letter for {poisoned.text(0)}",
    ]
    assert audit.immortal(found) == []  # type: ignore[arg-type]
    client.persist("dragoman:{0}:worker:x")
    assert audit.immortal(found) == [  # type: ignore[arg-type]
        "a key without TTL: dragoman:{0}:worker:x"
    ]
    client.delete("dragoman:{0}:worker:x")


def test_the_audit_finds_processes_that_are_still_there() -> None:
    environment = {**os.environ, "DRAGOMAN_CHAOS": "left behind"}
    process = subprocess.Popen(["sleep", "600"], env=environment)
    try:
        assert audit.survivors("left behind") == [f"process {process.pid} is still there"]
    finally:
        process.kill()
        process.wait()
    assert audit.survivors("left behind") == []


async def test_a_partition_lets_nothing_through(redis_server: RedisServer) -> None:
    partition = await Partition(redis_server.port).start()
    host, port = "127.0.0.1", int(partition.url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"PING\r\n")
    assert await reader.readline() == b"+PONG\r\n"
    partition.close()
    writer.write(b"PING\r\n")
    newcomer, _ = connected = await asyncio.open_connection(host, port)
    connected[1].write(b"PING\r\n")
    waiting = [asyncio.ensure_future(end.readline()) for end in (reader, newcomer)]
    done, _ = await asyncio.wait(waiting, timeout=0.2)
    assert not done
    partition.heal(cut=False)
    assert [await line for line in waiting] == [b"+PONG\r\n"] * 2
    partition.close()
    partition.heal(cut=True)
    assert await reader.read() == b""
    for end in (writer, connected[1]):
        end.close()
    await partition.stop()
