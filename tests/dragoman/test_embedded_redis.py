"""The embedded Redis: which program is taken, and what it keeps."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from dragoman import embedded_redis
from dragoman.supervisor import StackFailed, Stage, Supervisor

Wait = Callable[..., Any]


def make_program(path: Path, version: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{version}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "serves"),
    [
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64", True),
        ("Valkey server v=7.2.0 sha=0", True),
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc", True),
        ("Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc", False),
        ("something else", False),
    ],
)
def test_versions(tmp_path: Path, version: str, serves: bool) -> None:
    assert embedded_redis.serves(make_program(tmp_path / "server", version)) is serves


def test_a_program_for_another_machine_is_passed_over(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x7fELF for another machine")
    foreign.chmod(0o755)
    good = make_program(tmp_path / "good", "Redis server v=7.4.0")
    assert embedded_redis.find_server([tmp_path / "absent", foreign, good]) == good


def test_the_path_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(tmp_path / "redis-server", "Redis server v=7.4.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(embedded_redis.installed_servers()) == [tmp_path / "redis-server"]


def test_without_any_program_the_remedy_is_named() -> None:
    with pytest.raises(StackFailed, match=r"Install one .* or name a running server with"):
        embedded_redis.find_server([])


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder with a short path: the address of a socket has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="dragoman-") as folder:
        yield Path(folder)


@contextmanager
def running(run_dir: Path, data_dir: Path | None, wait_until: Wait) -> Iterator[Any]:
    """A client of a server that runs while the context lasts."""
    program = embedded_redis.find_server()
    command = embedded_redis.command(program, run_dir, data_dir, None)
    supervisor = Supervisor([Stage([command])], [lambda name: True], print)

    def turned(done: Callable[[], bool]) -> Callable[[], bool]:
        def turn() -> bool:
            supervisor.turn(time.monotonic())
            return done()

        return turn

    wait_until(turned(lambda: supervisor.ready), description="the server is ready")
    client = redis.Redis.from_url(embedded_redis.redis_url(run_dir))
    try:
        yield client
    finally:
        client.close()
        supervisor.stop()
        wait_until(turned(lambda: supervisor.stopped), description="the server has stopped")


@pytest.mark.parametrize(
    "line",
    [
        "1:M 22 Nov 2026 01:52:25.252 * Ready to accept connections unix",
        "1:M 22 Nov 2026 01:52:25.252 * The server is now ready to accept connections at /a.sock",
    ],
)
def test_every_version_says_ready_in_its_own_words(tmp_path: Path, line: str) -> None:
    assert embedded_redis.command(tmp_path / "server", tmp_path, None, None).ready_line in line


def test_it_never_evicts_and_opens_no_port(run_dir: Path, wait_until: Wait) -> None:
    with running(run_dir, None, wait_until) as client:
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert client.config_get("port")["port"] == "0"
        assert client.config_get("appendonly")["appendonly"] == "no"


def test_a_data_directory_outlives_the_server(
    run_dir: Path, tmp_path: Path, wait_until: Wait
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with running(run_dir, data, wait_until) as client:
        assert client.config_get("appendfsync")["appendfsync"] == "everysec"
        client.set("kept", "yes")
    with running(run_dir, data, wait_until) as client:
        assert client.get("kept") == b"yes"


def test_a_data_directory_belongs_to_one_stack(tmp_path: Path) -> None:
    with (
        embedded_redis.locked(tmp_path / "data"),
        pytest.raises(StackFailed, match="in use by another dragoman up"),
        embedded_redis.locked(tmp_path / "data"),
    ):
        pass
    with embedded_redis.locked(tmp_path / "data"):
        pass


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with (
        pytest.raises(StackFailed, match="cannot be used"),
        embedded_redis.locked(tmp_path / "file"),
    ):
        pass
