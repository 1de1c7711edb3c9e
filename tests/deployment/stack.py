"""The compose project under test: what it is made of, how it fares, and what its images promise."""

import json
import re
import subprocess
from datetime import datetime, timedelta

from tests.deployment import engine, images
from tests.deployment.engine import run

PROJECT = "dragoman-e2e"
URL = "http://127.0.0.1:9527"
TIERS = ("api", "worker", "documents")
READY = " ready: "  # what each tier says then
LOOKER = "e2e"  # the Redis user that reads what was refused
ANSWERED = re.compile(
    r'^dragoman_http_requests_total\{method="POST",route="/translation",status="200"\} (\S+)$', re.M
)
GET_METRICS = "import urllib.request as r; print(r.urlopen('{url}/metrics').read().decode())"
# What every image promises, checked inside it; the argument says whether the model is there.
PROMISES = """
import os, pathlib, re, sys
from importlib.resources import files
from importlib.util import find_spec
status = pathlib.Path("/proc/self/status").read_text()
assert os.getuid() == 10001 and os.getgid() == 10001, "runs as somebody else"
assert re.search("^CapEff:\\t0+$", status, re.M), "has capabilities"
assert re.search("^NoNewPrivs:\\t1$", status, re.M), "may get privileges"
assert os.statvfs("/").f_flag & os.ST_RDONLY, "can be written to"
assert sys.flags.safe_path, "imports from the working directory"
assert "site-packages" in find_spec("broker").origin, "does not run the installed wheel"
assert find_spec("torch") is None, "has torch"
assert (files("dragoman_models") / "small").is_dir() == (sys.argv[1] == "worker"), "the model"
"""


class Stack:
    """The compose project under test, as its files have it."""

    def __init__(self, *files: str) -> None:
        self._command = [*engine.compose(), "--project-name", PROJECT]
        self._command += [f"--file={file}" for file in files]

    def compose(self, *arguments: str, quiet: bool = False) -> str:
        return run([*self._command, *arguments], cwd=images.ROOT, quiet=quiet)

    def up(self, **counts: int) -> None:
        scales = [f"--scale={service}={count}" for service, count in counts.items()]
        self.compose("up", "--detach", "--no-build", *scales)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "60")

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service, quiet=True).split()

    def healthy(self, service: str, count: int) -> bool:
        states = [inspect(one, "State.Health.Status") for one in self.containers(service)]
        return states.count("healthy") == count

    def answered(self) -> list[int]:
        """How many translations each API container has answered."""
        code = GET_METRICS.format(url=URL)
        counts = []
        for container in self.containers("api"):
            shown = run(["docker", "exec", container, "python", "-c", code], quiet=True)
            found = ANSWERED.search(shown)
            counts.append(int(float(found[1])) if found else 0)
        return counts

    def check_promises(self) -> None:
        for service in TIERS:
            container = self.containers(service)[0]
            run(["docker", "exec", container, "python", "-c", PROMISES, service], quiet=True)

    def started_s(self, service: str) -> list[float]:
        """How long each container of a tier took until it said that it is ready, seconds."""
        return [
            (_moment(_said_ready(container)) - _moment(inspect(container, "State.StartedAt")))
            / timedelta(seconds=1)
            for container in self.containers(service)
        ]

    def new_key(self, tenant: str) -> str:
        """An API key, made as docs/deployment.md has it."""
        made = self.compose("run", "--rm", "-T", "init", "keys", "create", tenant)
        return made.strip()

    def refused(self) -> list[str]:
        """What Redis has refused its users, but for what redis-py tells of itself."""
        command = ["valkey-cli", "--user", LOOKER, "--pass", "-", "--no-auth-warning", "--json"]
        shown = self.compose("exec", "-T", "redis", *command, "ACL", "LOG", quiet=True)
        return [
            f"{entry['username']}: {entry['reason']} {entry['object']}"
            for entry in json.loads(shown)
            if entry["object"] != "client|setinfo"
        ]

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "40", quiet=True)


def inspect(container: str, field: str) -> str:
    return run(
        ["docker", "inspect", "--format", f"{{{{.{field}}}}}", container], quiet=True
    ).strip()


def _said_ready(container: str) -> str:
    """The time at which a container wrote that it is ready."""
    command = ["docker", "logs", "--timestamps", container]
    logs = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True)
    return next(line for line in logs.stdout.decode().splitlines() if READY in line).split()[0]


def _moment(text: str) -> datetime:
    """Of a time with nanoseconds, which datetime has not."""
    return datetime.fromisoformat(text[:26].rstrip("Z"))
