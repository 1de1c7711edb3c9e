"""Tests of ``broker.warnings``."""

from typing import get_args

from broker.warnings import MEANING, Code, warning


def test_every_code_has_a_meaning() -> None:
    assert tuple(MEANING) == get_args(Code)


def test_a_warning_begins_with_its_code_and_counts() -> None:
    assert warning("empty", 1, 1) == "empty: nothing came out (1 of 1 sentence)"
    assert warning("empty", 2, 5) == "empty: nothing came out (2 of 5 sentences)"
