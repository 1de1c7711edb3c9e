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
    return [unit.draft.delivery.record.lane for unit in roster.admit(free)]


def test_an_eighth_of_the_slots_is_for_interactive_work(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(30))
    assert lanes(roster, 16) == ["bulk"] * 14
    assert roster.room("interactive") >= 2
    roster.add(draft(5, "interactive"))
    assert lanes(roster, 2) == ["interactive"] * 2


def test_interactive_work_goes_first_but_leaves_bulk_its_share(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(30))
    roster.add(draft(30, "interactive"))
    assert lanes(roster, 16) == ["interactive"] * 13 + ["bulk"] * 3


def test_interactive_work_alone_may_take_every_slot(draft: Maker) -> None:
    roster = Roster(16)
    roster.add(draft(30, "interactive"))
    assert lanes(roster, 16) == ["interactive"] * 16
    assert roster.room("bulk") == 3


def test_a_single_slot_serves_both_lanes(draft: Maker) -> None:
    roster = Roster(1)
    assert roster.room("bulk") >= 1
    roster.add(draft(1))
    roster.add(draft(1, "interactive"))
    for expected in ("interactive", "bulk"):
        assert lanes(roster, 1) == [expected]
        roster.finish(next(iter(roster.inside)))


def test_room_shrinks_with_what_waits_and_grows_as_it_ends(draft: Maker) -> None:
    roster = Roster(16)
    assert (roster.room("interactive"), roster.room("bulk")) == (20, 18)
    roster.add(draft(16))
    roster.admit(16)
    assert roster.room("bulk") == 2
    roster.add(draft(3))
    assert roster.room("bulk") == 0
    for key in list(roster.inside):
        roster.finish(key)
    roster.admit(16)
    assert roster.room("bulk") == 13


def test_trials_have_the_engine_for_themselves(draft: Maker) -> None:
    roster = Roster(8)
    fresh, later, first, second = draft(2), draft(1), draft(10), draft(1)
    roster.add(fresh)
    assert len(roster.admit(8)) == 2
    roster.try_apart(first.units)
    roster.try_apart(second.units)
    roster.add(later)
    assert roster.trying
    assert (roster.room("bulk"), roster.room("interactive")) == (0, 0)
    assert roster.admit(6) == []
    for unit in fresh.units:
        roster.finish(unit.sentence.key)
    assert roster.admit(8) == first.units[:8]
    for unit in first.units[:8]:
        roster.finish(unit.sentence.key)
    assert roster.admit(8) == first.units[8:]
    assert roster.admit(6) == []
    for unit in first.units[8:]:
        roster.finish(unit.sentence.key)
    assert roster.admit(8) == second.units
    roster.finish(second.units[0].sentence.key)
    assert not roster.trying
    assert roster.admit(8) == later.units


def test_an_empty_trial_holds_nobody_up(draft: Maker) -> None:
    roster = Roster(8)
    roster.try_apart([])
    assert not roster.trying


def test_dropped_drafts_are_gone_from_everywhere(draft: Maker) -> None:
    roster = Roster(4)
    fresh, tried = draft(6), draft(6)
    roster.add(fresh)
    roster.admit(4)
    assert len(roster.drop({fresh})) == 4
    assert not roster.inside
    assert roster.waiting == 0
    roster.try_apart(tried.units)
    roster.admit(4)
    assert len(roster.drop({tried})) == 4
    assert not roster.trying
    assert roster.room("bulk") > 0


def test_bisection_ends_at_the_guilty_sentence(draft: Maker) -> None:
    roster = Roster(8)
    units = draft(7).units
    roster.add(units[0].draft)
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
                roster.finish(unit.sentence.key)
        roster.admit(8)
    assert guilty is units[4]
    assert steps <= 7


def test_a_failed_trial_is_bisected_before_what_follows_it(draft: Maker) -> None:
    roster = Roster(2)
    first, second = draft(3), draft(1)
    roster.try_apart(first.units)
    roster.try_apart(second.units)
    assert roster.admit(2) == first.units[:2]
    assert roster.bisect() is None
    for expected in ([first.units[0]], [first.units[1]], [first.units[2]], second.units):
        assert roster.admit(2) == expected
        roster.finish(expected[0].sentence.key)
    assert not roster.trying
