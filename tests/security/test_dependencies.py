"""requirements/*.lock and docs/licences.md fit pyproject.toml and each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.security.licences import DOCUMENT, LOCKS, locked, unfit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_ENTRY = re.compile(
    r"^([\w.-]+)==([^\s;]+)[^\n]*?\\\n(?:    --hash=sha256:[0-9a-f]{64}[^\n]*\n)+", re.MULTILINE
)


def entries(lock: Path) -> list[tuple[str, str]]:
    """Packages and versions; a package may have several, for several systems."""
    found = _ENTRY.findall(lock.read_text())
    return [(canonicalize_name(name), version) for name, version in found]


def test_there_is_a_lock_for_each_image() -> None:
    assert [lock.stem for lock in LOCKS] == ["api", "cpu", "documents"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_hashes(lock: Path) -> None:
    text = lock.read_text()
    starts = [line for line in text.splitlines() if line and not line.startswith(" ")]
    assert len(entries(lock)) == len(starts) > 10
    assert "://" not in text, "no index is named: whoever installs chooses it"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_fits_what_is_asked_for(lock: Path) -> None:
    """If it does not: make lock."""
    pinned = dict(entries(lock))
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"][lock.stem]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(pinned[name]), name


def test_licences_are_listed_and_fit() -> None:
    """If not: make licences."""
    rows = [line.split(" | ") for line in DOCUMENT.read_text().splitlines() if line.count("|") == 3]
    listed = {row[0].strip("| "): row[1].strip("| ") for row in rows[2:]}
    for name, licence in listed.items():
        assert not unfit(licence), name
    everywhere = {name for lock in LOCKS for name, marker in locked(lock).items() if not marker}
    assert {canonicalize_name(name) for name in everywhere} <= set(listed)


@pytest.mark.parametrize("licence", ["GPL-3.0", "UNKNOWN", "MIT AND GPL-3.0-only", "AGPL-3.0"])
def test_licences_that_do_not_fit(licence: str) -> None:
    assert unfit(licence)
    assert not unfit(f"{licence} OR MIT")
