"""What is done to the processes: a schedule made from a seed, and the faults themselves."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
import redis.asyncio

from tests.chaos.callers import Callers
from tests.chaos.cluster import Cluster, Member

AWAY_S = 2.5  # longer than a Redis call may take
LOADING_S = 300.0  # a long run has a large file
CALM_S = 25.0  # after poison that ends workers
QUIET_S = 15.0  # of load after the last fault, in which suspects get their turn
JITTER = 0.5  # of the time between two faults

OTHERS = (
    "worker killed",
    "worker frozen past its lease",
    "worker restarted",
    "worker partitioned",
    "API process killed",
    "API process restarted",
    "Redis killed",
    "Redis accepts and never answers",
    "connections cut",
    "functions wiped",
    "memory full",
    "reply streams trimmed",
    "poison: raise",
)
ENDING = ("poison: hang", "poison: crash")
KINDS = OTHERS + ENDING


@dataclass(frozen=True)
class Fault:
    """One fault: when, in seconds from the start of the load, of what kind, and on whom."""

    at_s: float
    kind: str
    pick: int


def schedule(seed: int, seconds: float, every_s: float) -> list[Fault]:
    """The faults of a run, every kind before any comes again. The same for the same arguments.

    What ends its workers comes last in a round, and then nothing for a while: its neighbours are
    with two workers that end, and a third one hurt by us would condemn them with it.
    """
    chance = random.Random(seed)
    faults: list[Fault] = []
    at_s, end_s = every_s, seconds - min(QUIET_S, seconds / 4)
    while at_s < end_s:
        for kind in chance.sample(OTHERS, len(OTHERS)) + chance.sample(ENDING, len(ENDING)):
            if at_s < end_s:
                faults.append(Fault(round(at_s, 3), kind, chance.randrange(1_000)))
            at_s += every_s * (1 + JITTER * (chance.random() - 0.5))
        at_s += CALM_S
    return faults


class Faults:
    """Injects them. The first API process and the first worker are never ended, so that what they
    leak adds up."""

    def __init__(self, cluster: Cluster, callers: Callers) -> None:
        self.done: Counter[str] = Counter()
        self.missed = 0  # that Redis was too busy to suffer
        self._cluster = cluster
        self._callers = callers
        self._redis: Any = redis.asyncio.Redis(port=cluster.redis.port, protocol=2)
        self._one_at_redis = asyncio.Lock()
        self._acts: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
            "worker killed": self._kill_worker,
            "worker frozen past its lease": self._freeze_worker,
            "worker restarted": self._restart_worker,
            "worker partitioned": self._part_worker,
            "API process killed": self._kill_api,
            "API process restarted": self._restart_api,
            "Redis killed": self._kill_redis,
            "Redis accepts and never answers": self._freeze_redis,
            "connections cut": self._cut_connections,
            "functions wiped": self._wipe_functions,
            "memory full": self._fill_memory,
            "reply streams trimmed": self._trim_replies,
        }

    async def run(self, faults: list[Fault]) -> None:
        """Injects each at its time; returns when the last one is over."""
        began_s = asyncio.get_running_loop().time()
        running: list[asyncio.Task[None]] = []
        for fault in faults:
            await asyncio.sleep(began_s + fault.at_s - asyncio.get_running_loop().time())
            running.append(asyncio.ensure_future(self._inject(fault)))
        await asyncio.gather(*running)
        await self._redis.aclose()

    async def _inject(self, fault: Fault) -> None:
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with (self._cluster.directory / "faults.log").open("a", encoding="utf-8") as log:
            log.write(f"{moment} {fault.kind} ({fault.pick})\n")
        try:
            if fault.kind.startswith("poison: "):
                self._callers.poison.append(fault.kind.removeprefix("poison: "))
            else:
                await self._acts[fault.kind](fault.pick)
        except redis.RedisError:
            self.missed += 1
        else:
            self.done[fault.kind] += 1

    # ── Workers and API processes ────────────────────────────────────────────────────────────

    def _worker(self, pick: int) -> Member:
        victims = self._cluster.workers[1:] + self._cluster.bundled[1:]
        return victims[pick % len(victims)]

    def _api(self, pick: int) -> Member:
        victims = self._cluster.apis[1:] + self._cluster.bundled[:1]
        return victims[pick % len(victims)]

    async def _kill_worker(self, pick: int) -> None:
        self._worker(pick).send(signal.SIGKILL)

    async def _restart_worker(self, pick: int) -> None:
        self._worker(pick).send(signal.SIGTERM)

    async def _freeze_worker(self, pick: int) -> None:
        member = self._worker(pick)
        frozen = member.process
        assert frozen is not None
        member.send(signal.SIGSTOP)
        await asyncio.sleep(self._cluster.shape.lease_s * 1.5)
        if frozen.poll() is None:
            frozen.send_signal(signal.SIGCONT)

    async def _part_worker(self, pick: int) -> None:
        self._cluster.partition.close()
        await asyncio.sleep(self._cluster.shape.lease_s * 1.5)
        self._cluster.partition.heal(cut=pick % 2 == 0)

    async def _kill_api(self, pick: int) -> None:
        self._api(pick).send(signal.SIGKILL)

    async def _restart_api(self, pick: int) -> None:
        self._api(pick).send(signal.SIGTERM)

    # ── Redis ────────────────────────────────────────────────────────────────────────────────

    async def _kill_redis(self, pick: int) -> None:
        async with self._one_at_redis:
            await asyncio.to_thread(self._cluster.redis.kill)
            await asyncio.to_thread(self._cluster.redis.start, LOADING_S)

    async def _freeze_redis(self, pick: int) -> None:
        async with self._one_at_redis:
            self._cluster.redis.send(signal.SIGSTOP)
            await asyncio.sleep(AWAY_S)
            self._cluster.redis.send(signal.SIGCONT)

    async def _cut_connections(self, pick: int) -> None:
        """Half of them, whoever they are; it is not always the same half."""
        async with self._one_at_redis:
            chance = random.Random(pick)
            clients = await self._redis.client_list()
            for client in chance.sample(clients, (len(clients) + 1) // 2):
                try:
                    await self._redis.client_kill_filter(_id=client["id"], skipme=True)
                except redis.ResponseError:
                    continue  # it has left by itself

    async def _wipe_functions(self, pick: int) -> None:
        async with self._one_at_redis:
            await self._redis.function_flush()

    async def _fill_memory(self, pick: int) -> None:
        """Lowers the limit below what is used, which for the server is the same."""
        async with self._one_at_redis:
            used = int((await self._redis.info("memory"))["used_memory"])
            await self._redis.config_set("maxmemory", used // 2)
            await asyncio.sleep(AWAY_S)
            await self._redis.config_set("maxmemory", 0)

    async def _trim_replies(self, pick: int) -> None:
        """All of their news, read or not."""
        async with self._one_at_redis:
            async for key in self._redis.scan_iter("dragoman:*:reply:*", count=1_000):
                await self._redis.xtrim(key, maxlen=0, approximate=False)
