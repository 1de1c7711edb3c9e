"""The books notice every way of breaking the promise."""

from typing import Any

import pytest

from tests.chaos.ledger import Entry, Ledger


def answered(entry: Entry, stamp: int = 7) -> list[dict[str, Any]]:
    """What a service that keeps its promise answers."""
    return [{"id": n, "text": f"{entry.text(n)} by {stamp}"} for n in range(entry.size)]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_a_promise_that_is_kept(ledger: Ledger) -> None:
    entry = ledger.open(3, key=True)
    ledger.accept(entry, "/jobs/1")
    ledger.check(entry, answered(entry))
    ledger.check(entry, answered(entry))
    assert (ledger.violations, ledger.lost) == ([], [])
    assert ledger.counts["records checked"] == ledger.counts["records read again"] == 3


def test_what_was_accepted_and_never_answered_is_lost(ledger: Ledger) -> None:
    forgotten, _ = ledger.open(1), ledger.open(1)
    ledger.accept(forgotten)
    assert ledger.lost == [forgotten]
    forgotten.cancelled = True
    assert ledger.lost == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda result: result.pop(), "2 of 3 records"),
        (lambda result: result.reverse(), "record 0 came back as 2"),
        (lambda result: result[1].update(text="1 2 here by 7"), "record 1 came back as"),
        (lambda result: result[1].update(text="1 1 here"), "record 1 came back as"),
        (lambda result: result[1].update(text=None, error={"code": "poison"}), "record 1 failed"),
    ],
)
def test_an_answer_that_is_wrong(ledger: Ledger, change: Any, words: str) -> None:
    entry = ledger.open(3)
    ledger.accept(entry)
    result = answered(entry)
    change(result)
    ledger.check(entry, result)
    assert len(ledger.violations) == 1
    assert words in ledger.violations[0]


def test_two_answers_by_two_workers_contradict_each_other(ledger: Ledger) -> None:
    entry = ledger.open(2)
    ledger.accept(entry)
    ledger.check(entry, answered(entry, stamp=7))
    ledger.check(entry, answered(entry, stamp=8))
    assert "answered twice with different results" in ledger.violations[0]


def test_one_key_that_became_two_jobs(ledger: Ledger) -> None:
    entry = ledger.open(1, key=True)
    ledger.accept(entry, "/jobs/1")
    ledger.accept(entry, "/jobs/2")
    assert "accepted twice" in ledger.violations[0]


@pytest.mark.parametrize(
    ("kind", "code"), [("raise", "internal"), ("hang", "poison"), ("crash", "poison")]
)
def test_poison_must_end_as_its_kind_does_alone(ledger: Ledger, kind: str, code: str) -> None:
    entry = ledger.open(3, poison=kind)
    ledger.accept(entry)
    assert ledger.planted == {entry.text(1): kind}
    result = answered(entry)
    ledger.check(entry, [result[0], {"id": 1, "error": {"code": code}}, result[2]])
    assert ledger.violations == []
    ledger.check(entry, result)
    assert f"poison ({kind}) ended as" in ledger.violations[0]
