"""The tiers of one machine as a benchmark wants them: Valkey, API and workers of its choice, each a
server of its own that is accounted for apart."""

import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.servers import HOST, Server, started
from broker.settings import BrokerSettings
from dragoman import embedded_redis, tiers
from dragoman.process import Command
from dragoman.settings import StackSettings
from dragoman.stack import free_port

WORKER_READY = "dragoman-worker ready"

# Every record goes through the engine, once; the engine has one thread.
ENGINE_ALONE = {
    "DRAGOMAN_THREADS": "1",
    "DRAGOMAN_MEMORY": "false",
    "DRAGOMAN_SELF_CHECK": "off",
}


@dataclass(frozen=True)
class Engine:
    """What workers compute with, how many sentences of it they hold, and their command."""

    name: str
    slots: int
    worker: Sequence[str]


def paced(batch_s: float, slots: int) -> Engine:
    """Waits ``batch_s`` for each batch instead of computing (``benchmarks/paced``)."""
    argv = [sys.executable, "-m", "benchmarks.paced", "--slots", str(slots)]
    return Engine(f"waits {batch_s:g} s a batch", slots, [*argv, "--batch-s", str(batch_s)])


def bundled(slots: int) -> Engine:
    """The bundled model."""
    worker = [tiers.program("dragoman-worker"), "--slots", str(slots)]
    return Engine("bundled model", slots, worker)


def worker_of(model: str) -> list[str]:
    """The worker as it is installed, or one that can serve what only the benchmarks know."""
    if model == "small":
        return [tiers.program("dragoman-worker")]
    return [sys.executable, "-m", "benchmarks.bare", "serve", "--model", model]


@dataclass(frozen=True)
class Stack:
    """A running service, its tiers apart. ``url`` is empty and ``api`` missing without an API."""

    url: str
    settings: BrokerSettings
    redis: Server
    api: Server | None
    workers: list[Server]

    def at(self, url: str) -> "Stack":
        """The same, reached in another way."""
        return replace(self, url=url)

    def servers(self) -> dict[str, Server]:
        """By name."""
        workers = {f"worker {number}": one for number, one in enumerate(self.workers, start=1)}
        return {"valkey": self.redis, **workers} | ({"api": self.api} if self.api else {})


@contextmanager
def stack(
    worker: Sequence[str],
    *,
    workers: int = 1,
    api_processes: int = 1,
    model: str = "small",
    environ: Mapping[str, str] | None = None,
    beside: Collection[int] = (),
) -> Iterator[Stack]:
    """Valkey, API (unless it is to have no processes) and workers that are started by the command
    ``worker``, all ready.

    ``environ`` goes to every tier. ``beside`` are the processors of Valkey and API, if not all.
    Raises NotStarted.
    """
    settings = StackSettings(port=free_port(HOST), api_processes=max(1, api_processes), model=model)
    with ExitStack() as exits:
        folder, redis = exits.enter_context(valkey(beside))
        where = {
            "DRAGOMAN_REDIS_URL": embedded_redis.redis_url(folder),
            "DRAGOMAN_ACCESS_LOG": "false",
            "DRAGOMAN_MEMORY": "false",  # repeated sentences are to cost what others do
            "DRAGOMAN_NICE": str(settings.nice),  # as with ``dragoman up``
            **(environ or {}),
        }
        fleet = [
            exits.enter_context(started(worker, WORKER_READY, environ=where))
            for _ in range(workers)
        ]
        url, api = "", None
        if api_processes:
            url = f"http://{HOST}:{settings.port}"
            api = exits.enter_context(run(tiers.api(settings, where), beside))
        broker = BrokerSettings(redis_url=where["DRAGOMAN_REDIS_URL"])
        yield Stack(url, broker, redis, api, fleet)


@contextmanager
def valkey(cpus: Collection[int] = ()) -> Iterator[tuple[Path, Server]]:
    """A server with nothing in it, and the folder of its socket."""
    with tempfile.TemporaryDirectory(prefix="dragoman-") as name:
        program = embedded_redis.find_server()
        command = embedded_redis.command(program, Path(name), data_dir=None, lock=None)
        with run(command, cpus) as server:
            yield Path(name), server


@contextmanager
def run(command: Command, cpus: Collection[int] = ()) -> Iterator[Server]:
    with started(
        command.argv,
        command.ready_line,
        environ=command.environ,
        times=command.ready_count,
        cpus=cpus,
    ) as server:
        yield server


@dataclass(frozen=True)
class Spent:
    """Processor seconds of each tier over a measurement."""

    by_tier: dict[str, float]
    api_shares: list[float]  # of the API's processes that answer, most first
    client: float


@contextmanager
def accounted(service: Stack) -> Iterator[list[Spent]]:
    """Puts one ``Spent`` into the list when the context ends."""
    found: list[Spent] = []
    before, client_s = by_process(service), time.process_time()
    yield found
    client_s = time.process_time() - client_s  # before the tiers are looked at, which takes some
    after = by_process(service)
    api = {pid: spent - before["api"].get(pid, 0.0) for pid, spent in after["api"].items()}
    total = sum(api.values()) or 1.0
    found.append(
        Spent(
            {tier: sum(after[tier].values()) - sum(before[tier].values()) for tier in after},
            sorted((spent / total for spent in api.values() if spent > 0), reverse=True),
            client_s,
        )
    )


def by_process(service: Stack) -> dict[str, dict[int, float]]:
    """Processor seconds so far by tier and process."""
    by_tier = {
        "api": [service.api] if service.api else [],
        "workers": service.workers,
        "redis": [service.redis],
    }
    return {
        tier: {pid: one.cpu_s for each in servers for pid, one in each.processes().items()}
        for tier, servers in by_tier.items()
    }


def beside() -> Collection[int]:
    """The processors of everything but the engine; none in particular if there is only one."""
    at_hand = sorted(os.sched_getaffinity(0))
    return at_hand[-1:] if len(at_hand) > 1 else ()


@contextmanager
def confined(cpus: Collection[int]) -> Iterator[None]:
    """This process on some processors alone while the context lasts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
