"""Tests of ``inference_worker.__main__``: what ends a worker before it begins, told readably."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.inference_worker.processes import ROOT, WorkerProcess
from tests.redis_server import RedisServer, closed_port, wait_until

pytestmark = pytest.mark.slow


def ended(*arguments: str, **environment: str) -> tuple[int, str]:
    process = WorkerProcess(["-m", "inference_worker", *arguments], environment)
    try:
        return process.ended(), process.output
    finally:
        process.end()


def test_a_server_that_is_not_there_is_a_readable_error() -> None:
    url = f"redis://127.0.0.1:{closed_port()}/0"
    status, output = ended("--redis-url", url, "--connect-s", "2")
    assert status == 1
    assert "waiting for Redis" in output
    assert "dragoman-worker: error: Redis does not answer" in output
    assert "Traceback" not in output


def test_a_checkpoint_that_is_not_there_is_a_readable_error(tmp_path: Path) -> None:
    status, output = ended("--model", "facebook/m2m100_418M", "--cache-dir", str(tmp_path))
    assert status == 1
    assert "no checkpoint named facebook/m2m100_418M" in output
    assert "run `dragoman models pull facebook/m2m100_418M`" in output
    assert "Traceback" not in output


def test_a_server_that_evicts_is_a_readable_error(redis_server: RedisServer) -> None:
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        status, output = ended("--redis-url", redis_server.url)
    finally:
        redis_server.client.config_set("maxmemory-policy", "noeviction")
    assert status == 1
    assert "error: maxmemory-policy is allkeys-lru" in output


def test_it_stands_back_as_told_and_so_does_its_session(tmp_path: Path) -> None:
    autogroup = tmp_path / "autogroup"
    code = f"""
import os
from pathlib import Path
from inference_worker.__main__ import stand_back
stand_back(3, Path({str(autogroup)!r}))
print(os.nice(0))
"""
    before = os.nice(0)
    for session in (True, False):
        autogroup.unlink(missing_ok=True)
        found = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            start_new_session=session,
        )
        assert int(found.stdout) == before + 3
        assert autogroup.exists() == session
    url = f"redis://127.0.0.1:{closed_port()}/0"
    process = WorkerProcess(["-m", "inference_worker", "--nice", "2", "--redis-url", url])
    try:
        wait_until(
            lambda: "waiting for Redis" in process.output, description="the worker looks for Redis"
        )
        assert process.niceness == before + 2
    finally:
        process.end()


def test_a_wrong_flag_is_a_readable_error() -> None:
    status, output = ended("--beams", "0")
    assert status == 2
    assert "--beams must be at least 1" in output
