"""The processes under test: Valkey with an append-only file, API processes and workers of two
protocol versions. Whatever ends is started again."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx
import redis

from tests.chaos.partition import Partition
from tests.chaos.rollout import ROOT, next_version
from tests.chaos.worker import CRASHED
from tests.redis_server import RedisServer, free_port

MARK = "DRAGOMAN_CHAOS"  # in the environment of every process of a run
LOOK_S = 0.1
READY_S = 120.0
GRACE_S = 20
_SHOWN_CHARS = 1_000


@dataclass(frozen=True)
class Shape:
    """How much of what there is, and how fast it gives up. Times are seconds."""

    api: int = 2
    workers: int = 3
    lease_s: float = 3.0
    heartbeat_s: float = 0.5
    hang_s: float = 3.0
    result_ttl_s: int = 150


@dataclass
class Member:
    """A process that is to be there, over all of its lives."""

    name: str
    arguments: list[str]
    directory: Path
    environment: dict[str, str]
    log: Path
    url: str = ""
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    asked: set[int] = field(default_factory=set)  # processes that were told or made to end
    descriptors: int = 0  # when its first life was ready
    _began_at: int = 0  # in the log
    _output: IO[bytes] | None = None

    def start(self) -> None:
        self._output = self._output or self.log.open("ab")
        self._began_at = self._output.seek(0, os.SEEK_END)
        self.process = subprocess.Popen(
            [sys.executable, *self.arguments],
            cwd=self.directory,
            env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
        )
        self.lives += 1

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        """A signal; one that ends it is remembered as asked for."""
        assert self.process is not None
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.asked.add(self.pid)
            if number == signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def output(self) -> str:
        """What this life has logged."""
        return self.log.read_bytes()[self._began_at :].decode(errors="replace")

    def ended_well(self) -> bool:
        """Whether its end, which has come, was one that somebody caused."""
        assert self.process is not None
        if self.pid in self.asked or self.process.returncode == CRASHED:
            return True
        return "Timeout (" in self.output()  # the watchdog's, of a step that hung

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGKILL)
            self.process.wait()
        if self._output is not None:
            self._output.close()


class Cluster:
    """All of them. ``deaths`` tells of processes that ended without a cause."""

    def __init__(self, shape: Shape, run: str) -> None:
        self.shape = shape
        self.run = run
        self.directory = Path(tempfile.mkdtemp(prefix="dragoman-chaos-"))
        self.redis = RedisServer(
            aof=True, extra=("--appendfsync", "always", "--auto-aof-rewrite-min-size", "16mb")
        )
        self.redis.client.close()
        self.redis.client = redis.Redis(port=self.redis.port, socket_timeout=60, protocol=2)
        self.partition = Partition(self.redis.port)
        self.apis: list[Member] = []
        self.workers: list[Member] = []
        self.deaths: list[str] = []
        self.restarts = 0
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def members(self) -> list[Member]:
        return [*self.apis, *self.workers]

    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    async def start(self) -> None:
        """The last API process and the last worker are of the next version, the worker before it
        reaches Redis through the partition."""
        await asyncio.to_thread(self.redis.start)
        await self.partition.start()
        newer = next_version(self.directory / "next")
        for number in range(self.shape.api):
            self._add_api(newer if number == self.shape.api - 1 else ROOT)
        for number in range(self.shape.workers):
            last = self.shape.workers - 1
            url = self.partition.url if number == last - 1 else self.redis.url
            self._add_worker(newer if number == last else ROOT, url)
        for member in self.members:
            member.start()
        await self.ready()
        for member in self.members:
            member.descriptors = member.open_files()
        self._supervisor = asyncio.ensure_future(self._supervise())

    def _flags(self, redis_url: str) -> list[str]:
        shape = self.shape
        return [
            *("--redis-url", redis_url, "--lease-s", str(shape.lease_s)),
            *("--heartbeat-s", str(shape.heartbeat_s), "--result-ttl-s", str(shape.result_ttl_s)),
        ]

    def _add(self, name: str, arguments: list[str], directory: Path, url: str = "") -> Member:
        log = self.directory / f"{name}.log"
        return Member(name, arguments, directory, {MARK: self.run}, log, url)

    def _add_api(self, directory: Path) -> None:
        port = free_port()
        flags = [*self._flags(self.redis.url), "--port", str(port), "--grace-s", str(GRACE_S)]
        arguments = ["-m", "api", *flags, "--access-log", "false"]
        url = f"http://127.0.0.1:{port}"
        self.apis.append(self._add(f"api-{len(self.apis)}", arguments, directory, url))

    def _add_worker(self, directory: Path, redis_url: str) -> None:
        arguments = [
            *("-m", "tests.chaos.worker", str(ROOT / "models" / "small")),
            *self._flags(redis_url),
            *("--hang-s", str(self.shape.hang_s), "--grace-s", str(GRACE_S)),
        ]
        self.workers.append(self._add(f"worker-{len(self.workers)}", arguments, directory))

    async def ready(self) -> None:
        """Returns once every API process answers and knows every worker."""
        end = time.monotonic() + READY_S
        async with httpx.AsyncClient(timeout=5) as client:
            for api in self.apis:
                while not await self._sees_workers(client, api.url):
                    if time.monotonic() > end:
                        raise RuntimeError(f"not ready in {READY_S:.0f} s: {self.directory}")
                    await asyncio.sleep(LOOK_S)

    async def _sees_workers(self, client: httpx.AsyncClient, url: str) -> bool:
        try:
            answer = await client.get(f"{url}/readyz", params={"workers": len(self.workers)})
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async def _supervise(self) -> None:
        while True:
            for member in self.members:
                assert member.process is not None
                if member.process.poll() is not None:
                    if not member.ended_well():
                        status = member.process.returncode
                        self.deaths.append(
                            f"{member.name} ended by itself, status {status}:"
                            f" {member.output()[-_SHOWN_CHARS:]}"
                        )
                    member.start()
                    self.restarts += 1
            await asyncio.sleep(LOOK_S)

    async def stop(self) -> None:
        """Ends everything, gently first; says so in ``deaths`` if that does not do."""
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await asyncio.to_thread(self._stop_members)
        await self.partition.stop()
        await asyncio.to_thread(self.redis.stop)

    def _stop_members(self) -> None:
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.send(signal.SIGTERM)
        for member in self.members:
            if member.process is None:
                continue
            try:
                status = member.process.wait(2 * GRACE_S)
                if status != 0:
                    self.deaths.append(f"{member.name} was told to stop and ended with {status}")
            except subprocess.TimeoutExpired:
                self.deaths.append(f"{member.name} did not stop in {2 * GRACE_S} s")
            member.end()
