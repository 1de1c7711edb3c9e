"""Tests of ``inference_worker.rate``."""

import pytest

from broker.wire import Details
from inference_worker.rate import Rate


def work(rate: Rate, began_s: float, ended_s: float) -> None:
    rate.began(began_s)
    rate.ended(ended_s)


def test_the_rate_is_characters_per_second_of_work() -> None:
    rate = Rate()
    assert rate.measure() == 0.0
    rate.completed(500, Details())
    work(rate, 10.0, 12.0)
    assert rate.measure() == pytest.approx(250.0)
    assert rate.measure() == pytest.approx(250.0)
    rate.completed(700, Details())
    work(rate, 20.0, 22.0)
    assert rate.measure() == pytest.approx(280.0)
    assert rate.records == 2


def test_a_moment_of_work_says_nothing() -> None:
    rate = Rate()
    rate.completed(500, Details())
    work(rate, 10.0, 10.001)
    assert rate.measure() == 0.0
    work(rate, 20.0, 21.0)
    assert rate.measure() == pytest.approx(500 / 1.001)


def test_sentences_per_record_follow_what_comes() -> None:
    rate = Rate()
    for _ in range(500):
        rate.prepared(10)
    assert rate.sentences_per_record == pytest.approx(10.0, rel=0.01)
    rate.prepared(0)
    assert rate.sentences_per_record > 9


def test_busy_is_the_share_of_time_since_it_was_last_asked() -> None:
    rate = Rate()
    rate.busy(100.0)
    work(rate, 101.0, 104.0)
    assert rate.busy(105.0) == pytest.approx(0.6)
    rate.began(107.0)
    assert rate.busy(110.0) == pytest.approx(0.6)  # the step that runs counts
    assert rate.busy(112.0) == pytest.approx(1.0)
    rate.ended(114.0)
    assert rate.busy(116.0) == pytest.approx(0.5)
    assert rate.busy(116.0) == 0.0


def test_what_became_of_sentences_is_counted() -> None:
    rate = Rate()
    lost = "lost_number: a number of the source is missing or changed (1 of 3 sentences)"
    rate.completed(9, Details(sentences=3, cached=2, warnings=[lost]))
    rate.completed(9, Details(sentences=2, coalesced=1, warnings=[lost, "mended: better"]))
    assert (rate.sentences, rate.cached, rate.coalesced) == (5, 2, 1)
    assert rate.warnings == {"lost_number": 2, "mended": 1}
