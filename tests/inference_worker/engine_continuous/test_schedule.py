"""Who is encoded, who gets a slot, and how attention is cut; no tensors involved."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.schedule import (
    AHEAD_MIN,
    ENCODE_TOKENS,
    ENCODE_TOKENS_MAX,
    Scheduler,
    keys,
)
from inference_worker.engine.continuous.slots import Slot
from inference_worker.engine.protocol import Sentence


def sentence(key: int, tokens: int = 5) -> Sentence:
    return Sentence(key, tuple(range(tokens)), 7)


def make_scheduler(width: int = 2, beams: int = 5, launch: int = 100) -> Scheduler:
    return Scheduler(width, Rules(beams=beams), launch)


def slot(index: int, cells: int, sources: int = 10) -> Slot:
    return Slot(index, sentence(index, sources), length=2, limit=200, cells=cells)


def test_names_no_torch() -> None:
    code = (
        "import sys, inference_worker.engine.continuous.schedule, "
        "inference_worker.engine.continuous.slots, inference_worker.engine.continuous.hypotheses;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_idle_slots_are_filled_at_once() -> None:
    scheduler = make_scheduler(width=2)
    scheduler.admit([sentence(1)])

    assert [one.key for one in scheduler.micro_batch()] == [1]
    assert [one.sentence.key for one in scheduler.place()] == [1]
    assert len(scheduler.table) == 1


def test_encoding_waits_for_a_full_micro_batch_while_the_slots_are_served() -> None:
    scheduler = make_scheduler(width=1)
    scheduler.admit([sentence(1)])
    scheduler.micro_batch()
    scheduler.place()
    scheduler.admit([sentence(2, ENCODE_TOKENS - 1)])
    assert scheduler.micro_batch() == []

    scheduler.admit([sentence(3, 1)])
    assert [one.key for one in scheduler.micro_batch()] == [2, 3]
    assert scheduler.place() == []  # the only slot is taken


def test_a_micro_batch_is_bounded_but_takes_any_one_sentence() -> None:
    scheduler = make_scheduler(width=8)
    scheduler.admit([sentence(1, ENCODE_TOKENS_MAX + 1), sentence(2), sentence(3)])

    assert [one.key for one in scheduler.micro_batch()] == [1]
    assert [one.key for one in scheduler.micro_batch()] == [2, 3]


def test_drop_frees_every_place() -> None:
    scheduler = make_scheduler(width=1)
    scheduler.admit([sentence(1), sentence(2)])
    scheduler.micro_batch()
    scheduler.place()
    scheduler.admit([sentence(3)])
    assert scheduler.free == scheduler.capacity - 3

    scheduler.drop([1, 2, 3, 99])

    assert scheduler.free == scheduler.capacity == 1 + AHEAD_MIN
    assert scheduler.table.free == 1


def test_greedy_groups_start_one_token_shorter() -> None:
    lengths = []
    for beams in (1, 2):
        scheduler = make_scheduler(beams=beams)
        scheduler.admit([sentence(1)])
        scheduler.micro_batch()
        lengths.append(scheduler.place()[0].length)
    assert lengths == [1, 2]


def test_inside_lists_the_furthest_first() -> None:
    scheduler = make_scheduler(width=1)
    scheduler.admit([sentence(1), sentence(2)])
    scheduler.micro_batch()
    scheduler.place()
    scheduler.admit([sentence(3)])
    assert [one.key for one in scheduler.inside()] == [1, 2, 3]


def test_a_runaway_gets_a_segment_of_its_own() -> None:
    occupied = [slot(0, 20), slot(1, 22), slot(2, 900), slot(3, 21), slot(4, 19)]

    segments = make_scheduler(width=8, launch=100).segments(occupied)

    assert [(one.slots, one.cells) for one in segments] == [
        (slice(0, 2), 22),
        (slice(2, 3), 900),
        (slice(3, 5), 21),
    ]


def test_free_slots_cut_segments() -> None:
    segments = make_scheduler(width=8).segments([slot(0, 20), slot(2, 20), slot(3, 25)])

    assert [(one.rows, one.slots) for one in segments] == [
        (slice(0, 1), slice(0, 1)),
        (slice(1, 3), slice(2, 4)),
    ]


@given(
    slots=st.dictionaries(st.integers(0, 30), st.tuples(st.integers(1, 999), st.integers(1, 99))),
    launch=st.integers(0, 500),
)
def test_segments_cover_each_slot_once_and_deep_enough(
    slots: dict[int, tuple[int, int]], launch: int
) -> None:
    occupied = [slot(index, *slots[index]) for index in sorted(slots)]

    segments = make_scheduler(width=32, launch=launch).segments(occupied)

    covered = []
    for segment in segments:
        rows = occupied[segment.rows]
        covered += rows
        assert [one.index for one in rows] == list(range(segment.slots.start, segment.slots.stop))
        assert segment.cells == max(one.cells for one in rows)
        assert segment.sources == max(one.sources for one in rows)
    assert covered == occupied
    apart = sum(one.cells + one.sources + launch for one in occupied)
    assert sum(keys(one) + launch for one in segments) <= apart
