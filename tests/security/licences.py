"""The licences of what the images install: docs/licences.md, and which of them fit.

python -m tests.security.licences [--write]
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
DOCUMENT = ROOT / "docs" / "licences.md"
PIP_LICENSES = Path(sys.executable).with_name("pip-licenses")
# Each may be shipped beside Apache-2.0; MPL-2.0 asks for its own files to stay open, no more.
FITTING = frozenset(
    {
        "0BSD", "Apache", "Apache 2.0 License", "Apache License 2.0", "Apache License Version 2.0",
        "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause", "BSD-3-Clause",
        "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "ISC License (ISCL)", "MIT", "MIT License",
        "MIT-CMU", "MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0",
        "Python Software Foundation License", "The Unlicense (Unlicense)", "Unlicense", "Zlib",
    }
)  # fmt: skip
_PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)==\S+(?: ; (.+?))? \\$", re.MULTILINE)


def locked(lock: Path) -> dict[str, str]:
    """The packages of a lock file, with the condition under which each is installed."""
    return {name.lower(): marker for name, marker in _PINNED.findall(lock.read_text())}


def unfit(licence: str) -> bool:
    """Whether none of the alternatives of a licence consists of fitting parts alone."""
    choices = re.split(r"; | OR ", licence.replace("(MPL 2.0)", "[MPL 2.0]"))
    parts = [re.split(r" AND ", choice.strip("() ")) for choice in choices]
    known = {name.replace("(MPL 2.0)", "[MPL 2.0]").strip("() ") for name in FITTING}
    return not any(all(part.strip("() ") in known for part in choice) for choice in parts)


def installed() -> dict[str, str]:
    """The licences of all locked packages that this environment has."""
    names = sorted({name for lock in LOCKS for name in locked(lock)})
    command = [str(PIP_LICENSES), "--format=json", "--from=mixed", "--packages", *names]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {re.sub(r"[-_.]+", "-", one["Name"]).lower(): one["License"] for one in found}


def document(licences: dict[str, str]) -> str:
    rows = "\n".join(f"| {name} | {licence} |" for name, licence in sorted(licences.items()))
    return (
        "# Licences\n\nOf what the images of the API, the CPU worker and the document worker"
        " install on Linux (`requirements/*.lock`), as the packages declare them. Written by `make"
        f" licences`.\n\n| package | licence |\n|---|---|\n{rows}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Lists the licences of what the images install.")
    parser.add_argument("--write", action="store_true", help="write docs/licences.md")
    arguments = parser.parse_args(argv)
    licences = installed()
    refused = {name: licence for name, licence in licences.items() if unfit(licence)}
    for name, licence in refused.items():
        print(f"{name}: {licence} does not fit, or is not known", file=sys.stderr)
    if arguments.write and not refused:
        DOCUMENT.write_text(document(licences), encoding="utf-8")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
