import pytest

from inference_worker.engine.continuous.plans import Buckets, compact, doubling
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.schedule import Segment
from inference_worker.engine.continuous.slots import Slot
from inference_worker.engine.protocol import Sentence

RULES = Rules(beams=2, max_length=100)
WIDTH, CELLS, SOURCES = 48, 200, 150


def slot(index: int, cells: int = 2, sources: int = 5, ngram: int = 0) -> Slot:
    return Slot(index, Sentence(index, (1,) * sources, 9, ngram), 2, 100, cells=cells)


def test_sizes_double_and_end_with_the_largest() -> None:
    assert doubling(1, 48) == [1, 2, 4, 8, 16, 32, 48]
    assert doubling(32, 32) == [32]
    assert doubling(32, 20) == [20]


@pytest.mark.parametrize(
    ("occupied", "width", "cells", "sources"),
    [
        ([slot(0)], 1, 64, 32),
        ([slot(0), slot(2)], 4, 64, 32),  # slot 1 is computed although nobody is in it
        ([slot(40)], 48, 64, 32),
        ([slot(0, cells=60)], 1, 64, 32),  # and four more while nobody looks
        ([slot(0, cells=61)], 1, 128, 64),
        ([slot(0, sources=33)], 1, 128, 64),
        ([slot(0), slot(1, cells=199, sources=150)], 2, 200, 150),
    ],
)
def test_fixed_shapes_hold_what_two_steps_may_take(
    occupied: list[Slot], width: int, cells: int, sources: int
) -> None:
    plan = Buckets(WIDTH, CELLS, SOURCES, RULES).plan(occupied)
    assert plan.slots == range(width)
    assert plan.segments == (Segment(slice(0, width), slice(0, width), cells, sources),)
    assert plan.used + RULES.beams == cells
    assert plan.columns == [each.index for each in occupied]


def test_every_shape_a_plan_can_have_is_among_those_to_capture() -> None:
    buckets = Buckets(WIDTH, CELLS, SOURCES, RULES)
    shapes = [plan.shape for plan in buckets.all()]
    assert len(shapes) == len(set(shapes))
    assert shapes[0] == max(shapes)
    for width in range(1, WIDTH + 1):
        for cells in (2, 90, CELLS):
            for sources in (1, 40, SOURCES):
                assert buckets.plan([slot(width - 1, cells, sources)]).shape in shapes


def test_a_cpu_computes_the_occupied_slots_alone() -> None:
    segments = [Segment(slice(0, 2), slice(3, 5), 7, 5)]
    together = compact([slot(3), slot(4, cells=7)], segments, RULES)
    assert (together.slots, together.columns) == (range(3, 5), [0, 1])
    assert (together.used, together.ngram, together.shape) == (7, 0, None)
    apart = compact([slot(3), slot(9, ngram=4)], segments, RULES)
    assert (apart.slots, apart.columns, apart.ngram) == ((3, 9), [0, 1], 4)
