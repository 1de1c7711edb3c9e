"""How measurements are told: the machine they were made on, and tables."""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.servers import NotStarted, stop_in_order_when_terminated

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "transformers", "ctranslate2", "redis")
SECRET = re.compile("KEY|PASSWORD|SECRET|TOKEN|URL")


def machine() -> str:
    """One line: processors, memory, how busy it is now, and the versions that matter."""
    cpus = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    busy = os.getloadavg()[0]
    packages = ", ".join(f"{name} {released(name)}" for name in PACKAGES)
    return (
        f"{cpus} × {processor()}, {memory_gib:.0f} GiB, Linux {platform.release().split('-')[0]},"
        f" load average {busy:.1f} at the start; Python {platform.python_version()}, {packages};"
        f" commit {commit()}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )


def made(module: str, measure: Callable[[str], str], folder: Path) -> int:
    """Runs a benchmark as its command does: ``measure`` is given the machine, as busy as it is
    before anything is started, and makes the Markdown, which is printed and kept in ``folder``.
    Returns the exit status: 2 if something it needs does not start, 130 if it was interrupted."""
    stop_in_order_when_terminated()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        text = measure(machine())
    except NotStarted as error:
        print(f"{module}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(text)
    (folder / f"{module}.md").write_text(text, encoding="utf-8")
    return 0


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Reads the command line of a benchmark; its docstring is the help."""
    found = argparse.ArgumentParser(
        f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder = Path("runs") / module
    found.add_argument("--out", type=Path, default=folder, help="folder of the report")
    return found


def tell(line: str) -> None:
    """Progress, beside the report."""
    print(line, file=sys.stderr, flush=True)


def command(module: str) -> str:
    """How this run was called, with the settings that it found in the environment."""
    call = shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]])
    return " ".join([*settings(), call])


def settings() -> list[str]:
    """Settings of Dragoman that differ from the defaults; what is secret is not told."""
    return [
        f"{name}={'…' if SECRET.search(name) else shlex.quote(value)}"
        for name, value in sorted(os.environ.items())
        if name.startswith("DRAGOMAN_")
    ]


def processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return " ".join(found[1].split()) if found else platform.machine()


def released(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The short hash, with a plus when files differ from it."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can also be read as it is: words to the left, numbers to the right."""
    columns = list(zip(heads, *rows, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    left = [not any(_number(cell) for cell in column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(cells, widths, left, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (width + 2) if to_left else "-" * (width + 1) + ":"
        for width, to_left in zip(widths, left, strict=True)
    )
    return "\n".join([line(heads), f"|{rule}|", *map(line, rows)])


def _number(cell: str) -> bool:
    return bool(re.fullmatch(r"[\d.,]+%?", cell))


def shown(value: float) -> str:
    """Seconds with three digits that mean something."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
