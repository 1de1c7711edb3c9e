"""The checkpoints on this machine: fetched by the worker tier's own program, named from the cache
that program keeps (``models/<name>/pinned`` holds a revision, ``models/<name>/<revision>/`` it)."""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.tiers import program

BUNDLED = "small"
CACHE_DIR = "~/.cache/dragoman"  # as dragoman-worker has it


@dataclass(frozen=True)
class Pulled:
    """A checkpoint in the cache."""

    name: str
    revision: str
    size_bytes: int


def pull(arguments: Sequence[str]) -> int:
    """Runs ``dragoman-worker pull``; its exit code."""
    return subprocess.run([program("dragoman-worker"), "pull", *arguments]).returncode


def pulled(cache: Path) -> Iterator[Pulled]:
    """What was pulled, by name; nothing for a cache that is not there."""
    models = cache / "models"
    for pin in sorted(models.rglob("pinned")):
        revision = pin.read_text(encoding="ascii").strip()
        files = (pin.parent / revision).rglob("*")
        size = sum(file.stat().st_size for file in files if file.is_file())
        yield Pulled(str(pin.parent.relative_to(models)), revision, size)


def listing(cache: Path) -> Iterator[str]:
    """A line per checkpoint, the bundled one first."""
    yield f"{BUNDLED}  bundled"
    for one in pulled(cache):
        yield f"{one.name}  {one.revision}  {one.size_bytes / 1e6:,.0f} MB"
