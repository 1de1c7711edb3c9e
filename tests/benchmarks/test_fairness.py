"""Tests of the fairness benchmark: one small run on real processes, and its report."""

import re

import pytest

from benchmarks import fairness

pytestmark = pytest.mark.slow


def test_a_small_run_tells_of_every_case_and_both_lanes() -> None:
    flags = ["--flood", "2000", "--probes", "2", "--every-s", "0.05", "--batch-s", "0.05"]
    options = fairness.parsed([*flags, "--shares-s", "0.5", "--engines", "paced"])
    text = fairness.told(options, "a machine")
    rows = [line for line in text.splitlines() if line.startswith("| waits 0.05 s a batch |")]
    assert len(rows) == len(fairness.CASES) + 2
    assert all(re.search(r"\d", row) for row in rows)


def test_flags_that_do_not_fit_are_refused() -> None:
    for flags in (["--flood", "0"], ["--probes", "0"], ["--batch-s", "0"], ["--workers", "0"]):
        with pytest.raises(SystemExit):
            fairness.parsed(flags)
