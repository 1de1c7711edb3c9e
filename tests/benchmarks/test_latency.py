"""Latency: the arithmetic, the engine by itself, and a small run of each side."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from benchmarks import bare, latency, stacks
from benchmarks.curve import Point, Side, draw, quoted_table
from benchmarks.latency import Attended, Connected
from benchmarks.stacks import Spent
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence

RUN = bare.Run(100, 2.0, 2.0, "any")


class CountedEngine:
    """Ends what is inside with every step, and notes how much that was."""

    name = "counted"
    device = "none"
    slots = 4

    def __init__(self) -> None:
        self.inside: list[Sentence] = []
        self.steps: list[int] = []

    @property
    def free(self) -> int:
        return self.slots - len(self.inside)

    def admit(self, sentences: Sequence[Sentence]) -> None:
        self.inside += sentences
        assert len(self.inside) <= self.slots

    def step(self) -> list[Finished]:
        assert self.inside
        self.steps.append(len(self.inside))
        ended, self.inside = self.inside, []
        return [Finished(one.key, (Hypothesis((), 0.0),)) for one in ended]

    def drop(self, keys: Collection[int]) -> None:
        raise AssertionError

    def reset(self) -> None:
        self.inside.clear()


def sentences(count: int) -> list[Sentence]:
    return [Sentence(key, (5, 2), 7) for key in range(count)]


def test_the_full_engine() -> None:
    engine = CountedEngine()
    run = bare.saturated(engine, sentences(10))
    assert (run.records, run.engine, engine.steps) == (10, "counted", [4, 4, 2])


def test_the_engine_with_sentences_that_come_when_they_are_due() -> None:
    engine = CountedEngine()
    took_s = bare.arriving(engine, sentences(7), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05])
    assert engine.steps in ([4, 2, 1], [4, 3])  # on a busy machine the last one is there as well
    assert len(took_s) == 7
    assert min(took_s) > 0


def test_the_engine_with_clients_that_wait() -> None:
    engine = CountedEngine()
    while not engine.steps:  # for so short a time a busy machine may do nothing
        found = bare.attended(engine, sentences(5), clients=3, seconds=0.01)
    assert set(engine.steps) == {3}
    assert len(found.took_s) == len(found.ended_s) == 3 * len(engine.steps)
    assert found.ended_s == sorted(found.ended_s)


def test_what_clients_asked_for_before_the_end_is_translated_and_told() -> None:
    class Slow(CountedEngine):
        def step(self) -> list[Finished]:
            time.sleep(0.02)
            first, *self.inside = self.inside
            return [Finished(first.key, (Hypothesis((), 0.0),))]

    found = bare.attended(Slow(), sentences(5), clients=3, seconds=0.03)
    assert len(found.took_s) >= 3
    assert max(found.ended_s) > 0.03
    assert Attended.of(found, 3, 0.03).rate == len(found.ended_s) / max(found.ended_s)


def test_added_latency_is_the_difference_of_quantiles() -> None:
    alone = Side.of([number / 1000 for number in range(1, 101)])
    through = Side.of([(number + 4) / 1000 for number in range(100, 0, -1)])
    assert alone.quantiles() == pytest.approx([50, 90, 95, 99])
    point = Point(0.3, 15.0, alone, through)
    assert point.added_ms() == pytest.approx([4, 4, 4, 4])
    assert "| **added**              |  4.0 |" in quoted_table(point)


@pytest.mark.parametrize(("share", "turns"), [(0.5, [0]), (0.3, [0, 1, 2, 3])])
def test_both_sides_get_the_same_times_in_turns(
    share: float, turns: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: list[tuple[str, list[float]]] = []

    def note(side: str, due_s: list[float]) -> list[float]:
        sides.append((side, due_s))
        return due_s

    poisson = latency.load.poisson
    monkeypatch.setattr(
        latency, "arriving", lambda rate, seconds, turn: note("bare", poisson(rate, seconds, turn))
    )
    monkeypatch.setattr(latency, "loaded", lambda service, due_s: note("service", due_s))
    point = latency.compared(None, share, 25.0, 10.0)  # type: ignore[arg-type]
    times = [poisson(25.0, 10.0, turn) for turn in turns]
    assert sides == [(side, due_s) for due_s in times for side in ("bare", "service")]
    assert point.added_ms() == [0.0] * 4


def test_the_report_and_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    side = Side.of([0.01, 0.02, 0.4])
    points = [Point(share, 50 * share, side, side) for share in (0.1, 0.3)]
    found = Attended(side, 1.5)
    row = latency.baseline_row("one after the other", "bare", found)
    assert row == ["one after the other", "bare", "1.5", "20.0", "400.0", "400.0", "400.0"]
    text = latency.told(RUN, points, [row], [["x"] * 8], "a machine")
    assert "it does 50.0 sentences/s" in text
    assert "3 requests, the two sides in 4 turns. Wanted" in text
    draw(points, tmp_path / "latency.png")
    assert (tmp_path / "latency.png").stat().st_size > 5_000


def test_ways_to_connect_are_compared_over_all_turns() -> None:
    new, kept = Connected(), Connected()
    for way, rate, ms in ((new, 50.0, 20.0), (kept, 100.0, 10.0), (new, 30.0, 40.0)):
        spent = Spent({"api": 0.004, "workers": 9.0, "redis": 9.0}, [1.0], 0.002)
        way.add(Attended(Side([ms] * 2), rate), spent)
    assert kept.row("kept", 48, new) == [
        *("kept", "48", "100", "2.50", "10.0", "10.0", "2000", "1000"),
    ]
    assert new.row("new", 48, new)[2:6] == ["40", "1.00", "20.0", "40.0"]


@pytest.mark.slow
def test_a_service_without_an_engine() -> None:
    with latency.serving(stacks.paced(0.0, 16).worker) as service:
        found = latency.loaded(service, latency.load.poisson(100.0, 0.2))
        assert len(found) > 5
        assert latency.attended(service, 2, 0.5, kept=False).rate > 0
        assert latency.attended(service, 1, 0.5, pause_s=0.01).side.latencies_ms


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (["--loads", "0"], ["--loads", "2"], ["--seconds", "0"], ["--records", "0"]):
        with pytest.raises(SystemExit):
            latency.parsed(wrong)
