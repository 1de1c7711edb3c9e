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

from benchmarks import paced
from benchmarks.servers import Server, started
from dragoman import embedded_redis, tiers
from dragoman.process import Command
from dragoman.settings import StackSettings
from dragoman.stack import free_port

HOST = "127.0.0.1"
WORKER_READY = paced.READY

# Every record goes through the engine, once; the engine has one thread.
ENGINE_ALONE = {
    "DRAGOMAN_THREADS": "1",
    "DRAGOMAN_MEMORY": "false",
    "DRAGOMAN_SELF_CHECK": "off",
}


@dataclass(frozen=True)
class Stack:
    """A running service, its tiers apart."""

    url: str
    redis: Server
    api: Server
    workers: list[Server]

    def at(self, url: str) -> "Stack":
        """The same, reached in another way."""
        return replace(self, url=url)

    def cpu_s(self) -> dict[str, dict[int, float]]:
        """Processor seconds so far by tier and process."""
        workers = [worker.cpu_s() for worker in self.workers]
        return {
            "api": self.api.cpu_s(),
            "workers": {pid: spent for each in workers for pid, spent in each.items()},
            "redis": self.redis.cpu_s(),
        }


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
    """Valkey, API and workers that are started by the command ``worker``, all ready.

    ``environ`` goes to every tier. ``beside`` are the processors of Valkey and API, if not all.
    Raises NotStarted.
    """
    settings = StackSettings(port=free_port(HOST), api_processes=api_processes, model=model)
    with ExitStack() as exits:
        folder, redis = exits.enter_context(valkey(beside))
        where = {
            "DRAGOMAN_REDIS_URL": embedded_redis.redis_url(folder),
            "DRAGOMAN_ACCESS_LOG": "false",
            "DRAGOMAN_MEMORY": "false",
            "DRAGOMAN_NICE": str(settings.nice),  # as with ``dragoman up``
            **(environ or {}),
        }
        fleet = [
            exits.enter_context(started(worker, WORKER_READY, environ=where))
            for _ in range(workers)
        ]
        api = exits.enter_context(run(tiers.api(settings, where), beside))
        yield Stack(f"http://{HOST}:{settings.port}", redis, api, fleet)


@contextmanager
def valkey(cpus: Collection[int] = ()) -> Iterator[tuple[Path, Server]]:
    """A server with nothing in it, and the folder of its socket."""
    with tempfile.TemporaryDirectory(prefix="dragoman-") as name:
        program = embedded_redis.find_server()
        command = embedded_redis.command(program, Path(name), data_dir=None, lock=None)
        with run(command, cpus) as server:
            yield Path(name), server


def paced_worker(batch_s: float, slots: int) -> list[str]:
    """The command of a worker that waits ``batch_s`` for each batch instead of computing."""
    argv = [sys.executable, "-m", "benchmarks.paced", "--slots", str(slots)]
    return [*argv, "--batch-s", str(batch_s)]


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
    before, client = service.cpu_s(), time.process_time()
    yield found
    after = service.cpu_s()
    used = {
        tier: {pid: spent - before[tier].get(pid, 0.0) for pid, spent in after[tier].items()}
        for tier in after
    }
    total = sum(used["api"].values()) or 1.0
    found.append(
        Spent(
            {tier: sum(spent.values()) for tier, spent in used.items()},
            sorted((spent / total for spent in used["api"].values() if spent > 0), reverse=True),
            time.process_time() - client,
        )
    )


def worker_of(model: str) -> list[str]:
    """The worker as it is installed, or one that can serve what only the benchmarks know."""
    if model == "small":
        return [tiers.program("dragoman-worker")]
    return [sys.executable, "-m", "benchmarks.bare", "serve", "--model", model]


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
