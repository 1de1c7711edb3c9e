"""A whole service for measurements that look into it: Valkey, workers and, if wanted, an API, with
the address of each and the memory they take."""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import paced
from benchmarks.servers import Server, parent_and_cpu_s, started
from broker.settings import BrokerSettings
from dragoman import embedded_redis, tiers
from dragoman.process import Command
from dragoman.settings import StackSettings
from dragoman.stack import free_port

HOST = "127.0.0.1"
REAL = "bundled model"


@dataclass(frozen=True)
class Engine:
    """What the workers translate with: ``batch_s`` above 0 is one that waits so long for each
    batch instead of computing, 0 the bundled model."""

    batch_s: float
    slots: int  # 0: as many as the worker thinks best

    @property
    def name(self) -> str:
        return f"waits {self.batch_s:g} s a batch" if self.batch_s else REAL

    def command(self) -> list[str]:
        slots = ("--slots", str(self.slots))
        if not self.batch_s:
            return [sys.executable, "-m", "inference_worker", *slots]
        return [sys.executable, "-m", "benchmarks.paced", *slots, "--batch-s", str(self.batch_s)]


@dataclass(frozen=True)
class Fleet:
    """A running service. ``url`` is empty without an API."""

    settings: BrokerSettings
    url: str
    processes: Mapping[str, Sequence[int]]  # by server; what it has started included

    def resident_bytes(self) -> dict[str, int]:
        """Memory by server."""
        return {name: sum(map(resident, pids)) for name, pids in self.processes.items()}

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds so far by server."""
        return {name: sum(map(spent_s, pids)) for name, pids in self.processes.items()}


def spent_s(process: int) -> float:
    """Processor seconds that a process has taken; 0 if it has ended."""
    with suppress(OSError):
        return parent_and_cpu_s(process)[1]
    return 0.0


def resident(process: int) -> int:
    """Bytes of memory that a process holds; 0 if it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


@contextmanager
def fleet(
    engine: Engine,
    workers: int,
    *,
    api_processes: int = 0,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Fleet]:
    """Ready. ``environ`` goes to every tier. Raises NotStarted."""
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="dragoman-")))
        program = embedded_redis.find_server()
        redis = embedded_redis.command(program, folder, data_dir=None, lock=None)
        servers = {"valkey": exits.enter_context(run(redis, {}))}
        where = {
            "DRAGOMAN_REDIS_URL": embedded_redis.redis_url(folder),
            "DRAGOMAN_MEMORY": "false",  # repeated sentences are to cost what others do
            "DRAGOMAN_ACCESS_LOG": "false",
            "DRAGOMAN_NICE": str(StackSettings.nice),  # as ``dragoman up`` has it
            **(environ or {}),
        }
        for number in range(1, workers + 1):
            worker = started(engine.command(), paced.READY, environ=where)
            servers[f"worker {number}"] = exits.enter_context(worker)
        url = ""
        if api_processes:
            settings = StackSettings(port=free_port(HOST), api_processes=api_processes)
            servers["api"] = exits.enter_context(run(tiers.api(settings, where), where))
            url = f"http://{HOST}:{settings.port}"
        broker = BrokerSettings(redis_url=where["DRAGOMAN_REDIS_URL"])
        yield Fleet(broker, url, {name: list(one.cpu_s()) for name, one in servers.items()})


@contextmanager
def run(command: Command, environ: Mapping[str, str]) -> Iterator[Server]:
    both = {**command.environ, **environ}
    with started(
        command.argv, command.ready_line, environ=both, times=command.ready_count
    ) as server:
        yield server
