"""The processes under test: Valkey with an append-only file, API processes and stamping workers of
two protocol versions, and an API process and a worker of the bundled model beside them. Whatever
ends is started again."""

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
from tests.chaos.worker import CRASHED, MODEL
from tests.redis_server import RedisServer, free_port

BUNDLED = "small"
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
    bundled: bool = True
    lease_s: float = 4.0
    heartbeat_s: float = 0.5
    hang_s: float = 3.0
    redis_timeout_s: float = 1.0
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
    colleagues: int = 0  # of an API process: live workers that it should know
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    asked: set[int] = field(default_factory=set)  # processes that were told or made to end
    descriptors: int = 0  # when its first life was ready
    _began_at: int = 0  # in the log
    _output: IO[bytes] | None = None

    def start(self) -> None:
        self._output = self._output or self.log.open("ab")
        self._began_at = self._output.seek(0, os.SEEK_END)
        ours = {name: value for name, value in os.environ.items() if name[:9] != "DRAGOMAN_"}
        self.process = subprocess.Popen(
            [sys.executable, *self.arguments],
            cwd=self.directory,
            env={**ours, "OMP_NUM_THREADS": "1", **self.environment},
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
        self.bundled: list[Member] = []  # an API process and a worker of the bundled model
        self.deaths: list[str] = []
        self.restarts = 0
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def members(self) -> list[Member]:
        return [*self.apis, *self.workers, *self.bundled]

    def urls(self) -> list[str]:
        return [api.url for api in self.apis]

    async def start(self) -> None:
        """The last API process and the last worker are of the next version, the worker before it
        reaches Redis through the partition."""
        await asyncio.to_thread(self.redis.start)
        await self.partition.start()
        newer = next_version(self.directory / "next")
        for number in range(self.shape.api):
            directory = newer if number == self.shape.api - 1 else ROOT
            self.apis.append(self._api(f"api-{number}", MODEL, self.shape.workers, directory))
        for number in range(self.shape.workers):
            last = self.shape.workers - 1
            url = self.partition.url if number == last - 1 else self.redis.url
            arguments = ["tests.chaos.worker", str(ROOT / "models" / "small")]
            directory = newer if number == last else ROOT
            self.workers.append(self._worker(f"worker-{number}", arguments, directory, url))
        if self.shape.bundled:
            arguments = ["inference_worker", "--threads", "1", "--beams", "1"]
            self.bundled = [
                self._api("api-bundled", BUNDLED, 1, ROOT),
                self._worker("worker-bundled", arguments, ROOT, self.redis.url),
            ]
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
            *("--redis-timeout-s", str(shape.redis_timeout_s)),
        ]

    def _member(self, name: str, arguments: list[str], directory: Path) -> Member:
        log = self.directory / f"{name}.log"
        return Member(name, arguments, directory, {MARK: self.run}, log)

    def _api(self, name: str, model: str, workers: int, directory: Path) -> Member:
        port = free_port()
        flags = [*self._flags(self.redis.url), "--port", str(port), "--grace-s", str(GRACE_S)]
        arguments = ["-m", "api", *flags, "--model", model, "--access-log", "false"]
        member = self._member(name, arguments, directory)
        member.url, member.colleagues = f"http://127.0.0.1:{port}", workers
        return member

    def _worker(self, name: str, module: list[str], directory: Path, redis_url: str) -> Member:
        flags = [*self._flags(redis_url), "--grace-s", str(GRACE_S)]
        flags += ["--hang-s", str(self.shape.hang_s)]
        program, *arguments = module
        return self._member(name, ["-m", program, *arguments, *flags], directory)

    async def ready(self) -> None:
        """Returns once every API process answers and knows every worker."""
        end = time.monotonic() + READY_S
        async with httpx.AsyncClient(timeout=5) as client:
            for api in (member for member in self.members if member.url):
                while not await self._sees_workers(client, api):
                    if time.monotonic() > end:
                        raise RuntimeError(f"not ready in {READY_S:.0f} s: {self.directory}")
                    await asyncio.sleep(LOOK_S)

    async def _sees_workers(self, client: httpx.AsyncClient, api: Member) -> bool:
        try:
            answer = await client.get(f"{api.url}/readyz", params={"workers": api.colleagues})
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
