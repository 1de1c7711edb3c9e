"""What must be true when everything has been answered: nothing outstanding in Redis, nothing kept
for ever, no process and no file left open."""

import asyncio
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from broker.keys import GROUP, Keys
from broker.wire import LANES
from tests.chaos.cluster import BUNDLED, MARK, Cluster
from tests.chaos.ledger import DEADLY, Ledger
from tests.chaos.worker import MODEL

SETTLE_S = 180.0  # includes the half minute after which abandoned work is cancelled
LOOK_S = 0.5
# Connections that a pool may have opened beyond those of a fresh process.
MORE_DESCRIPTORS = 16

_KEYS = Keys("0")


async def settled(cluster: Cluster) -> list[str]:
    """What is still outstanding after a generous wait; [] if nothing is."""
    end = time.monotonic() + SETTLE_S
    while left := await asyncio.to_thread(_outstanding, cluster.redis.client):
        if time.monotonic() > end:
            return left
        await asyncio.sleep(LOOK_S)
    return []


def _outstanding(client: Any) -> list[str]:
    left = []
    for model, lane in product((MODEL, BUNDLED), LANES):
        stream, backlog = _KEYS.queue(model, lane), _KEYS.backlog(model, lane)
        held = client.xpending(stream, GROUP)["pending"] if client.exists(stream) else 0
        sizes = {"window": client.xlen(stream), "backlog": client.zcard(backlog), "pending": held}
        left += [f"{size} in the {lane} {name}" for name, size in sizes.items() if size]
    for field, value in client.hgetall(_KEYS.load()).items():
        name = field.decode()
        if name.startswith(("cost:", "tenant:")) and int(value) != 0:
            left.append(f"outstanding {name} is {int(value)}")
    return left


def dead_letters(cluster: Cluster, ledger: Ledger) -> list[str]:
    """Dead letters that nobody planted, and those missing that somebody did."""
    wrong, dead = [], set()
    for _, fields in cluster.redis.client.xrange(_KEYS.dead()):
        text = msgspec.json.decode(fields[b"record"])["text"]
        dead.add(text)
        if ledger.planted.get(text) not in DEADLY:
            wrong.append(f"a dead letter nobody planted: {text}")
    missing = {text for text, kind in ledger.planted.items() if kind in DEADLY} - dead
    ledger.counts["dead letters"] = len(dead)
    return wrong + [f"no dead letter for {text}" for text in sorted(missing)]


def immortal(cluster: Cluster) -> list[str]:
    """Keys that nothing would ever remove."""
    return [f"a key without TTL: {key}" for key in cluster.redis.immortal_keys()]


def open_files(cluster: Cluster) -> list[str]:
    """Processes that lived through everything and hold more files than a pool explains."""
    wrong = []
    for member in cluster.members:
        count = member.open_files()
        if member.lives == 1 and count > member.descriptors + MORE_DESCRIPTORS:
            wrong.append(f"{member.name} holds {count} files, {member.descriptors} at its start")
    return wrong


def tracebacks(cluster: Cluster) -> list[str]:
    """API processes have no fault that may end in one."""
    return [
        f"{api.name} logged a traceback: {api.log}"
        for api in cluster.members
        if api.url and "Traceback (most recent call last)" in api.log.read_text(errors="replace")
    ]


def survivors(run: str) -> list[str]:
    """Processes of the run that are still there."""
    mark, found = f"{MARK}={run}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            environment = path.read_bytes().split(b"\0")
        except OSError:
            continue  # ended, or somebody else's
        if mark in environment and path.parent.name != str(os.getpid()):
            found.append(f"process {path.parent.name} is still there")
    return found
