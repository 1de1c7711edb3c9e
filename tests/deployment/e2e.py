"""``python -m tests.deployment.e2e``: the containers, built, started, scaled, and hurt under load.

Uses the Docker engine that answers. Where none does and root may start one (Debian's docker.io,
iptables, mmdebstrap), a private engine without a way out is started in ``build/e2e`` and ended
again. Exit status: 0, nothing was lost; 1, something was; 3, no engine can be had, and why.
"""

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import httpx

from tests.deployment import engine, images
from tests.deployment.engine import run
from tests.deployment.load import Callers, Tally

MODULE = "tests.deployment.e2e"
PROJECT = "dragoman-e2e"
NETWORK = f"{PROJECT}_default"
CACHE = images.ROOT / "build" / "e2e"
URL = "http://127.0.0.1:9527"
NO_ENGINE = 3
READY_S = 240
LOAD_S = 10  # between two injuries
HURT_S = 25  # longer than a lease, so that others take the records over
ANSWERED = re.compile(
    r'^dragoman_http_requests_total\{method="POST",route="/translation",status="200"\} (\S+)$', re.M
)
GET_METRICS = "import urllib.request as r; print(r.urlopen('{url}/metrics').read().decode())"
# What every image promises, checked inside it.
PROMISES = """
import os, pathlib, sys
from importlib.util import find_spec
assert os.getuid() == 10001 and os.getgid() == 10001, "runs as somebody else"
assert sys.flags.safe_path, "imports from the working directory"
assert "site-packages" in find_spec("broker").origin, "does not run the installed wheel"
try:
    pathlib.Path("/opt/dragoman/written").touch()
except OSError:
    pass
else:
    raise AssertionError("can write to itself")
assert find_spec("torch") is None, "has torch"
"""


class Stack:
    """The compose project under test."""

    def __init__(self) -> None:
        self._command = [*engine.compose(), "--project-name", PROJECT, "--file", "compose.yaml"]

    def compose(self, *arguments: str, quiet: bool = False) -> str:
        return run([*self._command, *arguments], cwd=images.ROOT, quiet=quiet)

    def up(self, workers: int, api: int) -> None:
        scales = ["--scale", f"worker={workers}", "--scale", f"api={api}"]
        self.compose("up", "--detach", "--no-build", *scales)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "60")

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service, quiet=True).split()

    def healthy(self, service: str, count: int) -> bool:
        form = "{{.State.Health.Status}}"
        states = [
            run(["docker", "inspect", "--format", form, container], quiet=True).strip()
            for container in self.containers(service)
        ]
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
        for service in ("api", "worker", "documents"):
            container = self.containers(service)[0]
            run(["docker", "exec", container, "python", "-c", PROMISES], quiet=True)

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "40", quiet=True)


async def until(predicate: Callable[[], bool], what: str) -> None:
    """Waits until the predicate, called in a thread, holds; raises after READY_S."""
    end = time.monotonic() + READY_S
    while not await asyncio.to_thread(predicate):
        if time.monotonic() > end:
            raise RuntimeError(f"not within {READY_S} s: {what}")
        await asyncio.sleep(1)


def step(text: str) -> None:
    print(f"\n{text}", flush=True)


async def scenario(stack: Stack) -> Tally:
    """Starts small, then scales both tiers and hurts three workers, all of it under load."""
    step("up: 2 workers, 1 API container")
    await asyncio.to_thread(stack.up, 2, 1)
    await until(lambda: stack.healthy("worker", 2), "two healthy workers")
    await until(lambda: stack.healthy("documents", 1), "a healthy document worker")
    await until(lambda: ready(2), "a balancer that has found an API container")
    await asyncio.to_thread(stack.check_promises)
    callers = Callers(URL, secrets.token_hex(4))
    load = asyncio.create_task(callers.run())
    try:
        await hurt(stack)
    finally:
        callers.stop()
        tally = await load
    await until(idle, "nothing outstanding, no dead letters")
    return tally


async def hurt(stack: Stack) -> None:
    """The injuries; every one leaves time for work that is to be lost, if any is."""
    step("scale to 4 workers and 2 API containers")
    await asyncio.to_thread(stack.up, 4, 2)
    await until(lambda: ready(4), "four workers that the API knows")
    await until(lambda: min(stack.answered(), default=0) > 0, "two API containers that answer")
    await asyncio.sleep(LOAD_S)
    killed, paused, cut = stack.containers("worker")[:3]
    step("kill a worker")
    await docker("kill", killed)
    await asyncio.sleep(HURT_S)
    step(f"pause a worker for {HURT_S} s")
    await docker("pause", paused)
    await asyncio.sleep(HURT_S)
    await docker("unpause", paused)
    step(f"take a worker off the network for {HURT_S} s")
    await docker("network", "disconnect", NETWORK, cut)
    await asyncio.sleep(HURT_S)
    await docker("network", "connect", NETWORK, cut)
    await asyncio.sleep(LOAD_S)
    counts = await asyncio.to_thread(stack.answered)
    print(f"  translations answered by each API container: {counts}", flush=True)
    if len(counts) != 2 or not all(counts):
        raise RuntimeError("the load balancer does not reach every API container")
    step("scale down to 1 worker and 1 API container")
    await asyncio.to_thread(stack.up, 1, 1)
    await asyncio.sleep(LOAD_S)


async def docker(*arguments: str) -> None:
    await asyncio.to_thread(run, ["docker", *arguments])


def ready(workers: int) -> bool:
    """Whether requests are taken, and as many workers are there to answer them."""
    return httpx.get(f"{URL}/readyz", params={"workers": workers}, timeout=30).status_code == 200


def idle() -> bool:
    """Whether the broker holds no work and has given none up."""
    shown = httpx.get(f"{URL}/metrics", timeout=30).text
    values = dict(line.rsplit(" ", 1) for line in shown.splitlines() if not line.startswith("#"))
    names = ("dragoman_ready_records", "dragoman_backlog_records", "dragoman_dead_letters")
    return all(float(values[name]) == 0 for name in names)


def report(tally: Tally) -> int:
    """Prints what happened; the exit status."""
    step("images")
    for name, size in images.sizes().items():
        print(f"  {name:20} {size}")
    step("requests")
    print(
        f"  {tally.sent} sent, {tally.answered} answered with all of their texts"
        f" ({tally.records} records), {tally.lost} lost\n"
        f"  {tally.retries} repeated by their callers, slowest {tally.slowest_s:.1f} s"
    )
    for line in tally.wrong[:20]:
        print(f"  {line}")
    return 1 if tally.lost or not tally.answered else 0


def run_stack() -> int:
    """Runs the scenario on the engine that DOCKER_HOST names; the exit status."""
    stack = Stack()
    stack.down()  # of a run that was broken off
    try:
        tally = asyncio.run(scenario(stack))
    except BaseException:
        print(stack.logs(), flush=True)
        raise
    finally:
        stack.down()
    return report(tally)


def main(arguments: Sequence[str]) -> int:
    try:
        if os.environ.get(engine.INSIDE):
            with engine.private(CACHE / "engine"):
                images.build_private(CACHE)
                return run_stack()
        engine.compose()
        if engine.answers():
            images.build([])
            return run_stack()
        engine.check_private()
    except engine.Unavailable as error:
        print(f"The containers cannot be tested here: {error}", file=sys.stderr)
        return NO_ENGINE
    step("No Docker engine answers: starting a private one, without a way out")
    images.fetch(CACHE)
    engine.enter_namespace(MODULE, arguments)
    raise AssertionError("unreachable")


def end(number: int, frame: object) -> None:
    """Ends as Ctrl-C does, so that what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)  # which shells ignore in the background
    try:
        sys.exit(main(sys.argv[1:]))
    except (RuntimeError, subprocess.SubprocessError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        sys.exit(1)
