"""Tests of ``inference_worker.rate``."""

import pytest

from inference_worker.rate import Rate


def test_the_rate_is_characters_per_second_of_work() -> None:
    rate = Rate()
    assert rate.measure() == 0.0
    rate.completed(500)
    rate.busy(2.0)
    assert rate.measure() == pytest.approx(250.0)
    assert rate.measure() == pytest.approx(250.0)
    rate.completed(700)
    rate.busy(2.0)
    assert rate.measure() == pytest.approx(280.0)
    assert rate.records == 2


def test_a_moment_of_work_says_nothing() -> None:
    rate = Rate()
    rate.completed(500)
    rate.busy(0.001)
    assert rate.measure() == 0.0
    rate.busy(1.0)
    assert rate.measure() == pytest.approx(500 / 1.001)


def test_sentences_per_record_follow_what_comes() -> None:
    rate = Rate()
    for _ in range(500):
        rate.prepared(10)
    assert rate.sentences_per_record == pytest.approx(10.0, rel=0.01)
    rate.prepared(0)
    assert rate.sentences_per_record > 9
