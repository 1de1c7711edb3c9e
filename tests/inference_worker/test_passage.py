"""Tests of ``inference_worker.passage``."""

from inference_worker.passage import FEWEST, FRESH_S, NEWEST, Passage


def test_three_in_four_take_longer() -> None:
    passage = Passage()
    for taken in range(1, 41):
        passage.note(10.0, float(taken))
    assert passage.fast_s(10.0) == 11.0


def test_few_records_say_nothing() -> None:
    passage = Passage()
    for _ in range(FEWEST - 1):
        passage.note(10.0, 2.0)
    assert passage.fast_s(10.0) == 0.0
    passage.note(10.0, 2.0)
    assert passage.fast_s(10.0) == 2.0


def test_what_was_is_forgotten() -> None:
    passage = Passage()
    for _ in range(FEWEST):
        passage.note(10.0, 2.0)
    assert passage.fast_s(10.0 + FRESH_S) == 0.0
    for _ in range(NEWEST):
        passage.note(11.0, 1.0)
    assert passage.fast_s(11.0) == 1.0
