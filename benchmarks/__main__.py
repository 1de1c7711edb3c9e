"""The benchmarks, one line each; or all that can be repeated in one go, in order.

    python -m benchmarks                          # what there is, and how long it takes
    python -m benchmarks --all OUT [NAME …]       # those with a duration, or these, into a folder

Each has the machine for itself while it runs; ``OUT`` gets their sections as NAME.md, the pictures,
and all sections in order as results.md. A benchmark that fails is told at the end, and does not
keep the others from running.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report, servers

# By module: minutes on two processors (0: not in --all), and what it asks.
BENCHMARKS = {
    "pipeline": (6, "what share of the bare engine is left behind HTTP and Redis"),
    "latency": (5, "how much later an answer comes because of them"),
    "peers": (18, "what others make of the same weights under the same load"),
    "memory": (3, "what the translation memory is worth, and costs"),
    "quality": (2, "what self-checks catch, mend and spoil"),
    "overload": (2, "three times more than can be done"),
    "fairness": (10, "what one tenant's flood does to another"),
    "stress": (1, "requests that keep coming (15 minutes with --grid --baseline)"),
    "replicas": (8, "what more workers and API processes bring"),
    "engine": (0, "the engine against transformers and CTranslate2"),
    "lockstep": (0, "what static batches cost"),
    "exact": (0, "whether the engine says what transformers says, token for token"),
}


def listing() -> str:
    lines = [
        f"  python -m benchmarks.{name:9} {f'{minutes:2} min' if minutes else '      '}  {asks}"
        for name, (minutes, asks) in BENCHMARKS.items()
    ]
    return "\n".join(lines)


def command(name: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", "--out", str(folder)]


def run(names: Sequence[str], folder: Path) -> list[str]:
    """Runs them one after the other; the names of those that failed."""
    sections, failed = [], []
    for name in names:
        report.tell(f"── {name}, about {BENCHMARKS[name][0]} minutes")
        section = folder / f"{name}.md"
        section.unlink(missing_ok=True)  # of an earlier run
        with subprocess.Popen(command(name, folder), stdout=subprocess.DEVNULL) as running:
            try:
                status = running.wait()
            finally:
                running.terminate()  # if this process was: it stops its servers first
        if status:
            failed.append(f"{name} (exit status {status})")
        if section.exists():
            sections.append(f"## {name.capitalize()}\n\n{section.read_text(encoding='utf-8')}")
        (folder / "results.md").write_text("\n".join(sections), encoding="utf-8")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", type=Path, metavar="OUT", help="run them, into this folder")
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone")
    options = parser.parse_args(arguments)
    known = [name for name, (minutes, _) in BENCHMARKS.items() if minutes]
    if unknown := set(options.names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    if not options.all:
        print(f"{listing()}\n\nEach has --help. All in order: python -m benchmarks --all OUT")
        return 0
    options.all.mkdir(parents=True, exist_ok=True)
    servers.stop_in_order_when_terminated()
    try:
        failed = run(options.names or known, options.all)
    except KeyboardInterrupt:
        return 130
    report.tell(f"Sections are in {options.all / 'results.md'}.")
    for name in failed:
        report.tell(f"Failed: {name}.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
