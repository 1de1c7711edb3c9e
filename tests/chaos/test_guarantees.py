"""docs/guarantees.md names tests, settings and commands that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT)


def test_it_names_tests() -> None:
    assert len(NAMED) == DOCUMENT.count("::") >= 20


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_it_names_is_there(file: str, name: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE)


def test_the_settings_it_names_are_documented() -> None:
    configuration = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    settings = set(re.findall(r"DRAGOMAN_\w+", DOCUMENT))
    assert settings
    assert {name for name in settings if f"`{name}`" not in configuration} == set()


def test_the_programs_it_names_are_there() -> None:
    programs = re.findall(r"`python -m ([\w.]+)`", DOCUMENT)
    assert programs
    assert all(
        (ROOT / program.replace(".", "/")).with_suffix(".py").exists() for program in programs
    )
