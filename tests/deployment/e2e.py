"""``python -m tests.deployment.e2e``: the containers, built, started, scaled, and hurt under load.

Uses the Docker engine that answers. Where none does and root may start one (Debian's docker.io,
iptables, mmdebstrap), a private engine without a way out is started in ``build/e2e`` and ended
again. Exit status: 0, nothing was lost; 1, something was; 3, no engine can be had, and why.
"""

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import httpx

from broker import users
from tests.deployment import engine, images
from tests.deployment.engine import run
from tests.deployment.load import Callers, Tally
from tests.deployment.stack import LOOKER, PROJECT, URL, Stack, inspect

MODULE = "tests.deployment.e2e"
NETWORK = f"{PROJECT}_default"
CACHE = images.ROOT / "build" / "e2e"
NO_ENGINE = 3
READY_S = 240
LOAD_S = 10  # between two injuries
HURT_S = 25  # longer than a lease, so that others take the work over
GUARDED_S = 30
STOP_S = 45  # as compose.yaml has it


async def until(predicate: Callable[[], bool], what: str) -> None:
    """Waits until the predicate, called in a thread, holds; raises after READY_S."""
    end = time.monotonic() + READY_S
    while not await asyncio.to_thread(predicate):
        if time.monotonic() > end:
            raise RuntimeError(f"not within {READY_S} s: {what}")
        await asyncio.sleep(1)


def step(text: str) -> None:
    print(f"\n{text}", flush=True)


async def started(stack: Stack, **counts: int) -> None:
    """Returns once all of it is healthy and can be reached, and says how long that took."""
    step("up: " + ", ".join(f"{count} {service}" for service, count in counts.items()))
    await asyncio.to_thread(stack.up, **counts)
    for service, count in counts.items():
        await until(partial(stack.healthy, service, count), f"healthy: {count} {service}")
    await until(lambda: ready(counts["worker"]), "a balancer that has found an API container")
    for service in counts:
        shown = ", ".join(f"{took:.1f}" for took in stack.started_s(service))
        print(f"  {service}: ready {shown} s after the start of its container", flush=True)


async def hurtful(stack: Stack) -> Tally:
    """Starts small, then scales the tiers and hurts their containers, all of it under load."""
    await started(stack, api=1, worker=2, documents=1)
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


async def guarded(stack: Stack) -> Tally:
    """Keys for the callers, and for each tier a Redis user that may no more than it must."""
    await started(stack, api=2, worker=2, documents=1)
    key = await asyncio.to_thread(stack.new_key, "acme")
    if (answer := httpx.post(f"{URL}/translation", json={})).status_code != 401:
        raise RuntimeError(f"without a key: {answer.status_code} {answer.text}")
    callers = Callers(URL, secrets.token_hex(4), key)
    load = asyncio.create_task(callers.run())
    await asyncio.sleep(GUARDED_S)
    callers.stop()
    tally = await load
    await until(idle, "nothing outstanding, no dead letters")
    if refused := await asyncio.to_thread(stack.refused):
        raise RuntimeError(f"Redis refused its users what they need: {refused}")
    return tally


def make_secrets(folder: Path) -> None:
    """What compose.secure.yaml reads, made as docs/deployment.md has it, and somebody who may look
    at what Redis refuses."""
    shutil.rmtree(folder, ignore_errors=True)
    users.write(folder)
    (folder / "key-secret").write_text(secrets.token_urlsafe(48), encoding="ascii")
    with (folder / users.ACL_FILE).open("a", encoding="ascii") as acl:
        acl.write(f"user {LOOKER} on nopass resetkeys resetchannels -@all +acl|log\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    os.environ["DRAGOMAN_SECRETS"] = str(folder)


async def hurt(stack: Stack) -> None:
    """The injuries; every one leaves time for work that is to be lost, if any is."""
    step("scale to 4 workers, 2 API containers and 2 document workers")
    await asyncio.to_thread(stack.up, worker=4, api=2, documents=2)
    await until(lambda: ready(4), "four workers that the API knows")
    await until(lambda: stack.healthy("documents", 2), "two healthy document workers")
    await until(lambda: min(stack.answered(), default=0) > 0, "two API containers that answer")
    await asyncio.sleep(LOAD_S)
    killed, paused, cut, told = stack.containers("worker")
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
    step("kill a document worker")
    await docker("kill", stack.containers("documents")[0])
    await asyncio.sleep(HURT_S)
    counts = await asyncio.to_thread(stack.answered)
    print(f"  translations answered by each API container: {counts}", flush=True)
    if len(counts) != 2 or not all(counts):
        raise RuntimeError("the load balancer does not reach every API container")
    step("stop one container of each tier, as an update does")
    # Of the API the last, since scaling down keeps the first.
    for container in (stack.containers("api")[-1], told, stack.containers("documents")[-1]):
        await asyncio.to_thread(stop, container)
    await asyncio.sleep(LOAD_S)
    step("scale down to one container of each tier")
    await asyncio.to_thread(stack.up, worker=1, api=1, documents=1)
    await asyncio.sleep(LOAD_S)


def stop(container: str) -> None:
    """Tells a container to stop; raises unless it drains in time and ends well."""
    began = time.monotonic()
    run(["docker", "stop", "-t", str(STOP_S), container])
    status, took = inspect(container, "State.ExitCode"), time.monotonic() - began
    print(f"  {inspect(container, 'Name')}: ended with {status} after {took:.1f} s", flush=True)
    if status != "0":
        raise RuntimeError(f"a container that was told to stop ended with {status}")


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
    """Prints what became of the requests; the exit status."""
    step("requests")
    print(
        f"  {tally.sent} sent, {tally.answered} answered with all of their texts"
        f" ({tally.records} records), slowest in {tally.slowest_s:.1f} s\n"
        f"  {tally.documents_sent} documents sent, {tally.documents_answered} came back whole"
        f" ({tally.lines} lines), slowest in {tally.slowest_document_s:.1f} s\n"
        f"  {tally.lost} lost; calls that were repeated: {dict(tally.repeated) or 'none'}"
    )
    for line in tally.wrong[:20]:
        print(f"  {line}")
    return 1 if tally.lost or not (tally.answered and tally.documents_answered) else 0


def run_stack(scenario: Callable[[Stack], Awaitable[Tally]], *files: str) -> int:
    """Runs a scenario on the engine that DOCKER_HOST names; the exit status."""
    stack = Stack(*files)
    stack.down()  # of a run that was broken off
    try:
        tally = asyncio.run(scenario(stack))
    except BaseException:
        print(stack.logs(), flush=True)
        raise
    finally:
        stack.down()
    return report(tally)


def run_all() -> int:
    step("images")
    for name, size in images.sizes().items():
        print(f"  {name:20} {size}")
    make_secrets(CACHE / "secrets")
    return max(
        run_stack(hurtful, "compose.yaml"),
        run_stack(guarded, "compose.yaml", "compose.secure.yaml"),
    )


def main(arguments: Sequence[str]) -> int:
    try:
        if os.environ.get(engine.INSIDE):
            with engine.private(CACHE / "engine"):
                images.build_private(CACHE)
                return run_all()
        engine.compose()
        if engine.answers():
            images.build([])
            return run_all()
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
