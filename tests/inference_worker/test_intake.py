"""Tests of ``inference_worker.intake``: what is read and begun, what is no longer wanted, suspects,
Redis away."""

from collections import deque
from time import perf_counter
from typing import Any

import msgspec
import pytest

from inference_worker import outtake
from inference_worker.intake import LOOK_S, SOON_S
from inference_worker.passage import FEWEST
from tests.inference_worker.stage import HEARTBEAT_S, RECLAIM_S, Stage


def test_nobody_waits_for_it_so_it_is_not_translated(stage: Stage) -> None:
    records = stage.broker.add("Late.", "Cancelled.", "Over.", "Go.")
    stage.broker.verdicts = dict(
        zip([r.place for r in records[:3]], ["expired", "cancelled", "over"], strict=True)
    )
    stage.settle([*records[:2], records[3]])
    assert stage.broker.codes([*records[:2], records[3]]) == ["expired", "cancelled", None]
    assert stage.broker.discarded == [records[2].place]
    assert sum(map(len, stage.engine.batches)) == 1
    assert not stage.held.places


def test_a_request_cancelled_while_in_the_slots_leaves_them(stage: Stage) -> None:
    stage.engine.width = 1
    records = stage.broker.add("One. Two. Three. Four. Five.", "Six.")
    stage.turn()
    stage.broker.verdicts[records[0].place] = "cancelled"
    stage.now_s += HEARTBEAT_S
    stage.settle(records)
    assert stage.broker.codes(records) == ["cancelled", None]
    assert len(stage.engine.batches) < 6


@pytest.mark.parametrize("where", ["the slots", "front of them"])
def test_what_is_late_is_noticed_before_the_next_heartbeat(stage: Stage, where: str) -> None:
    stage.engine.width = 0
    others = stage.broker.add(*[f"Sentence {n}." for n in range(8)], lane="interactive")
    if where == "front of them":
        stage.turn(2)
    records = stage.broker.add("Late.", lane="interactive", deadline_ms=1_250)  # as it is read
    stage.turn(2)
    stage.broker.verdicts[records[0].place] = "expired"
    stage.engine.width = 8
    stage.engine.batches.clear()
    stage.now_s += LOOK_S
    stage.settle([*records, *others])
    assert stage.broker.codes(records) == ["expired"]
    assert stage.broker.codes(others) == [None] * 8


def test_who_has_time_left_is_not_asked_for(stage: Stage) -> None:
    stage.engine.width = 0
    stage.broker.add("One.")
    stage.turn(2)
    begun = len(stage.broker.leasts_s)
    stage.now_s += LOOK_S
    stage.turn(2)
    assert len(stage.broker.leasts_s) == begun


def test_behind_a_full_engine_a_record_needs_time_to_come_through(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outtake, "perf_counter", lambda: perf_counter() + 2.0)
    for n in range(FEWEST):
        stage.settle(stage.broker.add(f"Sentence {n}.", lane="interactive"))
    assert set(stage.broker.leasts_s) == {0.0}  # there was always room
    stage.engine.width = 0
    stage.broker.add(*[f"Sentence {n}." for n in range(8)], lane="interactive")
    stage.turn(2)
    stage.broker.add("Behind.", lane="interactive")
    stage.broker.add("Of the other lane.")
    stage.turn(2)
    behind_s, other_s = stage.broker.leasts_s[-2:]
    assert behind_s >= 2.0
    assert other_s == SOON_S  # of that lane nothing is known


def test_a_read_that_fills_its_room_says_that_others_wait(stage: Stage) -> None:
    stage.broker.add("Alone.", lane="interactive")
    stage.turn()
    assert stage.broker.leasts_s == [0.0]
    stage.broker.add(*[f"Sentence {n}." for n in range(8)], lane="interactive")
    stage.turn()
    assert stage.broker.leasts_s[1:] == [SOON_S] * 8


def test_a_suspect_waits_until_what_came_before_it_is_written(stage: Stage) -> None:
    """Or the record that was alone with the engine before it dies with it, unanswered."""
    suspects = stage.broker.add("One.", attempts=3) + stage.broker.add("Two.", attempts=3)
    for _ in range(10):
        stage.worker.intake.turn(stage.now_s)
        stage.worker.decoding.turn(0.0)
        stage.now_s += RECLAIM_S
    assert len(stage.engine.batches) == 1
    assert stage.broker.left == deque()  # the second one is held, and waits
    assert stage.broker.outcomes == {}
    stage.settle(suspects)
    assert [len(batch) for batch in stage.engine.batches] == [1, 1]


def test_suspects_never_share_the_engine_with_fresh_work(stage: Stage) -> None:
    stage.engine.width = 1
    fresh = stage.broker.add("One.", "Two.", "Three.")
    stage.turn()
    stage.now_s += RECLAIM_S
    suspects = stage.broker.add(*[f"Suspect {n}." for n in range(8)], attempts=2)
    later = stage.broker.add("Four.", "Five.")
    stage.settle(fresh + suspects + later)
    assert stage.engine.batches
    for batch in stage.engine.batches:
        suspected = {4 <= key <= 11 for key in batch}
        assert len(suspected) == 1
    details = [stage.broker.outcomes[r.place].details for r in suspects]
    assert {d.attempts for d in details if d} == {2}


def test_two_groups_of_suspects_do_not_meet(stage: Stage) -> None:
    first = stage.broker.add("One.", "Two.", attempts=2)
    second = stage.broker.add("Three.", attempts=3)
    stage.settle(first + second)
    assert stage.engine.batches == [[1, 2], [3]]


def test_fresh_work_gets_its_turn_between_groups_of_suspects(stage: Stage) -> None:
    groups = [stage.broker.add("Suspect.", attempts=2) for _ in range(4)]
    fresh = stage.broker.add("Fresh.")
    stage.settle(fresh)
    assert sum(group[0].place in stage.broker.outcomes for group in groups) <= 2
    stage.settle([delivery for group in groups for delivery in group])


def test_the_fourth_delivery_is_a_dead_letter(stage: Stage) -> None:
    (record,) = stage.broker.add("Poison.", attempts=4)
    stage.settle([record])
    assert stage.broker.codes([record]) == ["poison"]
    assert stage.broker.dead == [record.place]
    assert stage.engine.batches == []


def test_what_was_handed_back_is_fresh(stage: Stage) -> None:
    fresh = stage.broker.add("One.")
    returned = [stage.broker.delivery("Two.", "bulk", 1)]
    stage.broker.left.append(returned)
    stage.settle(fresh + returned)
    assert stage.broker.texts(returned) == ["Two."]


def test_a_worker_that_reclaims_its_own_record_goes_on_with_it(stage: Stage) -> None:
    stage.engine.width = 1
    (record,) = stage.broker.add("One. Two. Three.")
    stage.turn()
    stage.now_s += RECLAIM_S
    stage.broker.left.append([msgspec.structs.replace(record, attempts=2)])
    stage.turn(5)
    assert stage.broker.texts([record]) == ["One. Two. Three."]
    assert stage.engine.batches == [[1, 2, 3], [2, 3], [3]]


def test_while_redis_is_away_the_slots_go_on(stage: Stage) -> None:
    stage.engine.width = 1
    records = stage.broker.add("One.", "Two.", "Three.")
    stage.turn()
    stage.broker.away = True
    stage.turn(2)
    assert None not in stage.broker.texts(records)
    assert stage.pauses[-1] == pytest.approx(1.0, abs=0.01)
    stage.broker.away = False
    stage.now_s += 1.0
    later = stage.broker.add("Four.")
    stage.settle(later)


def test_records_read_just_before_redis_went_away_are_begun_later(stage: Stage) -> None:
    records = stage.broker.add("One.")
    begin = stage.broker.begin

    def away(deliveries: Any) -> Any:
        stage.broker.away = True
        return begin(deliveries)

    stage.broker.begin = away  # type: ignore[method-assign]
    stage.turn()
    assert stage.held.places == {records[0].place}
    stage.broker.begin, stage.broker.away = begin, False  # type: ignore[method-assign]
    stage.now_s += 1.0
    stage.settle(records)


def test_reads_fill_the_slots_and_then_go_ahead(stage: Stage) -> None:
    stage.engine.width = 0
    stage.broker.add(*[f"Sentence {n}." for n in range(40)])
    stage.turn(10)
    assert stage.broker.reads[0] == (8, 7, 1_000)
    waiting = 40 - len(stage.broker.queues["bulk"])
    assert waiting == stage.engine.slots - 1 + 2  # all but the interactive slot, and ahead
    stage.engine.width = 7
    stage.turn(3)
    assert [len(batch) for batch in stage.engine.batches[-3:]] == [7, 7, 7]


def test_reads_wait_only_while_both_lanes_have_room(stage: Stage) -> None:
    stage.turn(2)
    assert stage.broker.reads == [(8, 7, 1_000)] * 2
    assert stage.pauses == [0.0, 0.0]
    stage.engine.width = 0
    stage.broker.add(*[f"Sentence {n}." for n in range(40)])
    stage.turn(10)
    assert stage.broker.reads[-1] == (1, 0, 0)
    assert stage.pauses[-1] == 0.02


def test_heartbeats_report_the_worker(stage: Stage) -> None:
    records = stage.broker.add("One.")
    stage.settle(records)
    stage.now_s += HEARTBEAT_S
    stage.turn()
    assert len(stage.broker.heartbeats) == 2
    entry, batch = stage.broker.heartbeats[-1]
    assert (entry.id, entry.model, entry.engine, entry.slots) == ("worker-1", "small", "echo", 8)
    assert (entry.completed, entry.sentences, entry.warnings) == (1, 1, {})
    assert 0.0 < entry.busy <= 1.0
    assert batch == 8
