"""Hostile requests against the whole service in real processes, made from its OpenAPI document.

    python -m tests.security.fuzz --minutes 60      (make fuzz MINUTES=60)

Runs schemathesis with all of its checks, again and again with other seeds until the time is over;
then every process must be the one that was started, must have logged no mistake of ours, and must
have the memory it had. Exit status 0 if so.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.redis_server import RedisServer
from tests.security.service import Service, resident_mib, service

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
GROWTH_MIB = 64  # what one API process may keep of an hour
MISTAKE = re.compile(r"(?:ERROR|CRITICAL) .*|Traceback.*")
# Waiting is bounded, so that a round is not spent on it; what is refused says so within it.
FLAGS = ("--sync-wait-s", "2", "--events-heartbeat-s", "0.5", "--body-timeout-s", "5")


def attack(url: str, seed: int, examples: int, round_s: int) -> subprocess.CompletedProcess[str]:
    """One round of schemathesis."""
    with tempfile.TemporaryDirectory(prefix="dragoman-fuzz-") as scratch:
        return subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION),
                "run", f"{url}/openapi.json", "--max-time", str(round_s),
                "--checks", "all", "--exclude-checks", "use_after_free",
                "--phases", "examples,coverage,fuzzing,stateful",
                "--mode", "all",
                "--max-examples", str(examples),
                "--seed", str(seed),
                "--request-timeout", "60",
                "--workers", "1",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            cwd=scratch,  # it keeps notes of what it has found
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": scratch},
        )  # fmt: skip


def faults(target: Service) -> list[str]:
    """What a service that was attacked must not show."""
    found = [line for line in target.log.splitlines() if MISTAKE.search(line)]
    if not target.alive:
        found.append("a process ended")
    if httpx.get(f"{target.api.url}/readyz", timeout=60).status_code != 200:
        found.append("the API is not ready")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Attacks the service for a while.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--round-s", type=int, default=600, help="how long a round may take")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    end = time.monotonic() + arguments.minutes * 60
    redis = RedisServer().start()
    try:
        with service(redis, *FLAGS) as target:
            rounds, before = 0, 0.0
            while time.monotonic() < end or not rounds:
                seed = arguments.seed + rounds
                done = attack(target.api.url, seed, arguments.examples, arguments.round_s)
                found = faults(target)
                if done.returncode or found:
                    print(done.stdout, done.stderr, *found, sep="\n")
                    return 1
                rounds += 1
                resident = resident_mib(target.api.pid)
                before = before or resident  # after a first round, when everything is loaded
                print(f"round {rounds}: nothing found, API {resident:.0f} MiB", flush=True)
            grown = resident_mib(target.api.pid) - before
            print(f"{rounds} rounds, the API grew by {grown:.0f} MiB from {before:.0f} MiB")
            return 1 if grown > GROWTH_MIB else 0
    finally:
        redis.stop()


if __name__ == "__main__":
    sys.exit(main())
