"""Tests of ``inference_worker.roster``: who enters the engine when."""

import pytest

from broker.wire import Lane
from inference_worker.draft import Draft, LanguageModel, prepared
from inference_worker.roster import Roster
from inference_worker.tokens import Vocabulary
from tests.inference_worker.parties import Broker


class Maker:
    def __init__(self, vocabulary: Vocabulary) -> None:
        self._model = LanguageModel("small", "r1", vocabulary, 64, 200)
        self._broker = Broker()
        self._key = 1

    def __call__(self, sentences: int, lane: Lane = "bulk") -> Draft:
        """A draft of so many sentences."""
        delivery = self._broker.delivery("Go. " * sentences, lane, 1)
        draft = prepared(delivery, self._model, self._key)
        self._key += sentences
        assert len(draft.units) == sentences
        return draft


@pytest.fixture
def draft(vocabulary: Vocabulary) -> Maker:
    return Maker(vocabulary)


def lanes(roster: Roster, free: int) -> list[str]:
    return [unit.lane for unit in roster.admit(free)]


def test_an_eighth_of_the_slots_is_for_interactive_work(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(30).units)
    assert lanes(roster, 16) == ["bulk"] * 14
    assert roster.room("interactive") >= 2
    roster.add(draft(5, "interactive").units)
    assert lanes(roster, 2) == ["interactive"] * 2


def test_interactive_work_goes_first_but_leaves_bulk_its_share(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(30).units)
    roster.add(draft(30, "interactive").units)
    assert lanes(roster, 16) == ["interactive"] * 13 + ["bulk"] * 3


def test_interactive_work_alone_may_take_every_slot(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(30, "interactive").units)
    assert lanes(roster, 16) == ["interactive"] * 16
    assert roster.room("bulk") == 3


def test_bulk_work_that_waits_takes_no_room_from_interactive_work(draft: Maker) -> None:
    """With both lanes full, what was read of each decides who enters when slots are freed."""
    roster = Roster(16)
    roster.add(draft(16).units)
    roster.add(draft(13, "interactive").units)
    assert len(lanes(roster, 16)) == 16
    waiting = roster.waiting
    assert waiting == 13  # bulk, more than is read ahead
    assert roster.room("interactive") == 4


def test_a_single_slot_serves_both_lanes(draft: Maker) -> None:
    roster = Roster(1)
    assert roster.room("bulk") >= 1
    roster.add(draft(1).units)
    roster.add(draft(1, "interactive").units)
    for expected in ("interactive", "bulk"):
        assert lanes(roster, 1) == [expected]
        roster.finish([next(iter(roster.inside))])


def test_room_shrinks_with_what_waits_and_grows_as_it_ends(draft: Maker) -> None:
    roster = Roster(16)
    assert (roster.room("interactive"), roster.room("bulk")) == (16, 14)
    roster.add(draft(14).units)
    roster.admit(16)
    assert roster.room("bulk") == 2  # the slots are taken: from here on it is ahead
    roster.add(draft(3).units)
    assert roster.room("bulk") == 0
    for key in list(roster.inside):
        roster.finish([key])
    roster.admit(16)
    assert roster.room("bulk") == 11


def test_as_much_is_read_ahead_as_a_step_can_end(draft: Maker) -> None:
    roster = Roster(16)
    for _ in range(2):
        roster.add(draft(14).units)
        roster.admit(16)
        roster.finish(list(roster.inside))
    roster.add(draft(14).units)
    roster.admit(16)
    roster.add(draft(2).units)
    assert roster.room("bulk") == 12


def test_openings_count_what_makes_room_in_both_lanes(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(19).units)
    roster.admit(16)
    assert roster.openings == 0
    roster.wait_for_opening(1, 0.0)
    roster.finish(list(roster.inside)[:3])
    roster.admit(16)
    assert roster.openings == 1


def test_trials_have_the_engine_for_themselves(draft: Maker) -> None:
    roster = Roster(8)
    fresh, later, first, second = draft(2), draft(1), draft(10), draft(1)
    roster.add(fresh.units)
    assert len(roster.admit(8)) == 2
    roster.try_apart(first.units)
    roster.try_apart(second.units)
    roster.add(later.units)
    assert (roster.room("bulk"), roster.room("interactive")) == (0, 0)
    assert roster.admit(6) == []
    for unit in fresh.units:
        roster.finish([unit.sentence.key])
    assert roster.admit(8) == first.units[:8]
    for unit in first.units[:8]:
        roster.finish([unit.sentence.key])
    assert roster.admit(8) == first.units[8:]
    assert roster.admit(6) == []
    for unit in first.units[8:]:
        roster.finish([unit.sentence.key])
    assert roster.admit(8) == second.units
    roster.finish([second.units[0].sentence.key])
    assert roster.room("interactive")
    assert roster.admit(8) == later.units


def test_an_empty_trial_holds_nobody_up(draft: Maker) -> None:
    roster = Roster(8)
    roster.try_apart([])
    assert roster.room("interactive")


def test_dropped_drafts_are_gone_from_everywhere(draft: Maker) -> None:
    roster = Roster(4)
    fresh, tried = draft(6), draft(6)
    roster.add(fresh.units)
    roster.admit(4)
    roster.drop({fresh})
    assert roster.gone() == {unit.sentence.key for unit in fresh.units[:4]}
    assert roster.gone() == set()
    assert not roster.inside
    assert roster.waiting == 0
    roster.try_apart(tried.units)
    roster.admit(4)
    roster.drop({tried})
    assert len(roster.gone()) == 4
    assert roster.room("interactive")
    assert roster.room("bulk") > 0


def test_bisection_ends_at_the_guilty_sentence(draft: Maker) -> None:
    roster = Roster(8)
    units = draft(7).units
    roster.add(units)
    roster.admit(8)
    steps = 0
    while True:
        steps += 1
        group = list(roster.inside.values())
        if units[4] in group:
            if (guilty := roster.bisect()) is not None:
                break
        else:
            for unit in group:
                roster.finish([unit.sentence.key])
        roster.admit(8)
    assert guilty is units[4]
    assert steps <= 7


def test_who_is_left_of_a_failed_step_may_be_innocent(draft: Maker) -> None:
    """Its neighbour was dropped while the step ran, and may have been the guilty one."""
    roster = Roster(4)
    dropped, left = draft(1), draft(1)
    roster.add([*dropped.units, *left.units])
    assert len(roster.admit(4)) == 2
    roster.drop({dropped})
    assert roster.bisect() is None
    assert roster.admit(4) == left.units
    assert roster.bisect() is left.units[0]
    assert roster.room("interactive")


def test_a_failed_trial_is_bisected_before_what_follows_it(draft: Maker) -> None:
    roster = Roster(2)
    first, second = draft(3), draft(1)
    roster.try_apart(first.units)
    roster.try_apart(second.units)
    assert roster.admit(2) == first.units[:2]
    assert roster.bisect() is None
    for expected in ([first.units[0]], [first.units[1]], [first.units[2]], second.units):
        assert roster.admit(2) == expected
        roster.finish([expected[0].sentence.key])
    assert roster.room("interactive")


def test_a_sentence_stays_while_another_draft_waits_for_it(draft: Maker) -> None:
    roster = Roster(4)
    first, second = draft(1), draft(1)
    (unit,) = first.units
    unit.spots.append(second.units[0].spots[0])
    roster.add([unit])
    roster.admit(4)
    roster.drop({first})
    assert [spot.draft for spot in unit.spots] == [second]
    assert roster.gone() == set()
    roster.drop({second})
    assert roster.gone() == {unit.sentence.key}


def test_what_ends_after_it_was_dropped_is_nobodys(draft: Maker) -> None:
    roster = Roster(4)
    dropped = draft(2)
    roster.add(dropped.units)
    roster.admit(4)
    roster.drop({dropped})
    assert roster.finish([dropped.units[0].sentence.key]) == [None]
    assert roster.gone() == {dropped.units[1].sentence.key}
    assert roster.bisect() is None
    assert roster.room("interactive")
