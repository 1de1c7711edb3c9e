"""Tests of ``inference_worker.worker``: its three stages, turned by hand one after the other."""

import logging
import re
from collections import deque
from dataclasses import replace
from time import perf_counter
from typing import Any

import msgspec
import pytest

from broker.warnings import warning
from broker.wire import Delivery
from inference_worker import outtake
from inference_worker.decoding import EngineBroken
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence
from inference_worker.hang import Watchdog
from inference_worker.intake import LOOK_S, SOON_S
from inference_worker.memory import SentenceMemory
from inference_worker.passage import FEWEST
from inference_worker.quality.review import SelfCheck
from inference_worker.tokens import Vocabulary
from inference_worker.worker import Worker
from tests.inference_worker.engines import Echo, raising
from tests.inference_worker.parties import Broker, Held, Shelf

HEARTBEAT_S = 5.0
RECLAIM_S = 4.0


@pytest.fixture
def model(vocabulary: Vocabulary) -> LanguageModel:
    return LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=200)


class Stage:
    """A worker with everything around it, and a clock that moves a millisecond a turn."""

    def __init__(
        self,
        model: LanguageModel,
        engine: Echo | None = None,
        memory: SentenceMemory | None = None,
    ) -> None:
        self.broker = Broker()
        self.held = Held()
        self.engine = engine or Echo()
        self.pauses: list[float] = []
        self.now_s = 100.0
        self.worker = Worker(
            self.broker,
            self.held,
            self.engine,
            model,
            Watchdog(1_000.0),
            memory,
            heartbeat_s=HEARTBEAT_S,
            reclaim_s=RECLAIM_S,
            started_ms=1,
        )

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.pauses.append(self.worker.intake.turn(self.now_s))
            self.worker.decoding.turn(0.0)
            self.worker.outtake.turn(0.0)
            self.now_s += 0.001

    def settle(self, deliveries: list[Delivery]) -> None:
        """Turns until all of these have an outcome."""
        for _ in range(1_000):
            if all(delivery.place in self.broker.outcomes for delivery in deliveries):
                assert not self.held.places & {delivery.place for delivery in deliveries}
                return
            self.turn()
        raise AssertionError("records without an outcome after 1,000 turns")


@pytest.fixture
def stage(model: LanguageModel) -> Stage:
    return Stage(model)


def pieces(vocabulary: Vocabulary, text: str) -> tuple[int, ...]:
    return tuple(vocabulary.pieces(text))


# ── What comes out ────────────────────────────────────────────────────────────────────────────


def test_records_come_back_with_their_layout(stage: Stage) -> None:
    texts = ["One. Two!\r\n\r\n - Three. 4\n", "Where is it?", "  \n", "", "12 %s 😀"]
    records = stage.broker.add(*texts)
    stage.settle(records)
    assert stage.broker.texts(records) == texts
    assert stage.broker.discarded == []


def test_what_has_no_sentence_needs_no_engine(stage: Stage) -> None:
    records = stage.broker.add("", " \n ", "42")
    stage.turn()
    assert stage.broker.texts(records) == ["", " \n ", "42"]
    assert stage.engine.batches == []


def test_details_say_what_happened(stage: Stage) -> None:
    (record,) = stage.broker.add("One. Two.")
    stage.settle([record])
    details = stage.broker.outcomes[record.place].details
    assert details is not None
    assert (details.model, details.worker, details.attempts) == ("small", "worker-1", 1)
    assert (details.sentences, details.queue_ms, details.warnings) == (2, 250.0, [])
    assert details.tokenize_ms > 0
    assert details.inference_ms > 0


def test_a_long_text_goes_through_in_parts(stage: Stage) -> None:
    text = "so " * 500 + "on."
    (record,) = stage.broker.add(text)
    stage.settle([record])
    assert stage.broker.texts([record]) == [text]
    assert len(stage.engine.batches) > 1


def test_text_in_the_target_language_is_left_alone(stage: Stage) -> None:
    (record,) = stage.broker.add("Guten Tag.", source="de")
    stage.settle([record])
    outcome = stage.broker.outcomes[record.place]
    assert outcome.text == "Guten Tag."
    assert outcome.details is not None
    assert outcome.details.warnings == [warning("same_language", 1, 1)]


def test_a_translation_that_was_cut_off_carries_a_warning(vocabulary: Vocabulary) -> None:
    stage = Stage(LanguageModel("small", "r1", vocabulary, 64, max_length=4))
    records = stage.broker.add("Yes.", "This has many more pieces than two.")
    stage.settle(records)
    warnings = [d.warnings for r in records if (d := stage.broker.outcomes[r.place].details)]
    assert warnings[1] == [warning("truncated", 1, 1)]


# ── What is tried once more ───────────────────────────────────────────────────────────────────


class Forgetful(Echo):
    """Says each sentence back, but loses figures, unless it knows better on a later try."""

    def __init__(self, vocabulary: Vocabulary, tries: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.tries = tries
        self.seen: list[Sentence] = []

    def step(self) -> list[Finished]:
        inside = dict(self.inside)
        self.seen += inside.values()
        finished = super().step()
        if len(self.seen) > self.tries:
            return finished
        return [self.without_figures(inside[one.key]) for one in finished]

    def without_figures(self, sentence: Sentence) -> Finished:
        text = re.sub(r"\d+", "7", self.vocabulary.decode(sentence.source))
        return Finished(sentence.key, (Hypothesis(tuple(self.vocabulary.pieces(text)), -1.0),))


def checking(vocabulary: Vocabulary, mode: SelfCheck, tries: int) -> tuple[Stage, Forgetful]:
    engine = Forgetful(vocabulary, tries)
    model = LanguageModel("small", "r1", vocabulary, 64, max_length=200, self_check=mode)
    return Stage(model, engine), engine


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_sentence_that_fails_a_check_is_tried_once_more(
    vocabulary: Vocabulary, attempts: int
) -> None:
    stage, engine = checking(vocabulary, "retry", tries=1)
    (record,) = stage.broker.add("Born in 1987.", attempts=attempts)
    stage.settle([record])
    outcome = stage.broker.outcomes[record.place]
    assert outcome.text == "Born in 1987."
    assert outcome.details is not None
    assert outcome.details.warnings == [warning("mended", 1, 1)]
    first, second = engine.seen
    assert vocabulary.decode(second.source) == "Born in 23."
    assert (first.key, first.target_language) == (second.key, second.target_language)


def test_it_is_tried_once_only_and_then_reported(vocabulary: Vocabulary) -> None:
    stage, engine = checking(vocabulary, "retry", tries=9)
    (record,) = stage.broker.add("Born in 1987. Oh.")
    stage.settle([record])
    outcome = stage.broker.outcomes[record.place]
    assert outcome.text == "Born in 7. Oh."
    assert outcome.details is not None
    assert outcome.details.warnings == [warning("lost_number", 1, 2)]
    assert len(engine.seen) == 3


@pytest.mark.parametrize(
    ("mode", "said"), [("report", [warning("lost_number", 1, 1)]), ("off", [])]
)
def test_without_a_second_try_it_is_only_reported_or_not_even_that(
    vocabulary: Vocabulary, mode: SelfCheck, said: list[str]
) -> None:
    stage, engine = checking(vocabulary, mode, tries=1)
    (record,) = stage.broker.add("Born in 1987.")
    stage.settle([record])
    details = stage.broker.outcomes[record.place].details
    assert details is not None
    assert details.warnings == said
    assert len(engine.seen) == 1


def test_a_record_may_be_cancelled_between_two_tries(vocabulary: Vocabulary) -> None:
    stage, engine = checking(vocabulary, "retry", tries=1)
    (record,) = stage.broker.add("Born in 1987.")
    while not engine.seen:
        stage.turn()
    stage.broker.verdicts[record.place] = "cancelled"
    stage.now_s += HEARTBEAT_S
    stage.settle([record])
    assert stage.broker.codes([record]) == ["cancelled"]
    stage.turn(3)
    assert len(stage.broker.outcomes) == 1


def test_a_second_try_that_the_engine_cannot_do_costs_nothing(vocabulary: Vocabulary) -> None:
    stage, engine = checking(vocabulary, "retry", tries=9)
    engine.fault = raising(pieces(vocabulary, "Born in 23."))
    (record,) = stage.broker.add("Born in 1987. Oh.")
    stage.settle([record])
    assert stage.broker.texts([record]) == ["Born in 7. Oh."]
    details = stage.broker.outcomes[record.place].details
    assert details is not None
    assert details.warnings == [warning("lost_number", 1, 2)]


def test_who_cannot_wait_for_a_second_try_gets_the_first(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two who wait for the same sentence, the other one still gets the better translation."""
    monkeypatch.setattr(outtake, "perf_counter", lambda: perf_counter() + 2.0)
    model = LanguageModel("small", "r1", vocabulary, 64, max_length=200, self_check="retry")
    engine, shelf = Forgetful(vocabulary, tries=1), Shelf()
    stage = Stage(model, engine, SentenceMemory(shelf, model))
    hurried = stage.broker.add("Born in 1987.", deadline_ms=2_250)  # a second after it is read
    patient = stage.broker.add("Born in 1987.")
    stage.settle(hurried + patient)
    assert stage.broker.texts(hurried + patient) == ["Born in 7.", "Born in 1987."]
    said = [stage.broker.outcomes[one.place].details for one in hurried + patient]
    assert [one and one.warnings for one in said] == [
        [warning("lost_number", 1, 1)],
        [warning("mended", 1, 1)],
    ]
    assert shelf.held == {}


def test_what_nobody_wants_any_more_is_not_tried_again(vocabulary: Vocabulary) -> None:
    stage, engine = checking(vocabulary, "retry", tries=9)
    (record,) = stage.broker.add("Born in 1987.")
    stage.worker.intake.turn(stage.now_s)
    stage.worker.decoding.turn(0.0)
    stage.broker.verdicts[record.place] = "cancelled"
    stage.worker.intake.turn(stage.now_s + HEARTBEAT_S)  # while its translation is being judged
    stage.turn(3)
    assert stage.broker.codes([record]) == ["cancelled"]
    assert len(engine.seen) == 1


# ── What fails ────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_language_fails_its_record_alone(stage: Stage) -> None:
    records = stage.broker.add("One.", "Two.", source="tlh") + stage.broker.add("Three.")
    stage.settle(records)
    assert stage.broker.codes(records) == ["unsupported_language"] * 2 + [None]


def test_a_text_that_cannot_be_encoded_fails_its_record_alone(stage: Stage) -> None:
    records = stage.broker.add("One.", "Two \ud800.", "Three.")
    stage.settle(records)
    assert stage.broker.codes(records) == [None, "internal", None]


class Speechless(Echo):
    """Has no hypothesis for what it is given second."""

    def step(self) -> list[Finished]:
        finished = super().step()
        return [replace(one, hypotheses=()) if one.key == 2 else one for one in finished]


def test_a_translation_that_cannot_be_read_fails_its_record_alone(model: LanguageModel) -> None:
    stage = Stage(model, Speechless())
    records = stage.broker.add("One.", "Two. And more.", "Three.")
    stage.settle(records)
    assert stage.broker.codes(records) == [None, "internal", None]


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


@pytest.mark.parametrize("guilty", [0, 31, 63])
def test_a_poison_sentence_among_64_costs_one_record(
    model: LanguageModel, vocabulary: Vocabulary, guilty: int
) -> None:
    texts = [f"Sentence {n}." for n in range(64)]
    fault = raising(pieces(vocabulary, texts[guilty]))
    stage = Stage(model, Echo(slots=64, fault=fault))
    records = stage.broker.add(*texts)
    stage.settle(records)
    texts[guilty : guilty + 1] = [None]  # type: ignore[list-item]
    assert stage.broker.texts(records) == texts
    assert stage.broker.codes([records[guilty]]) == ["internal"]
    assert stage.engine.resets <= 7


def test_several_guilty_sentences_are_all_found(
    model: LanguageModel, vocabulary: Vocabulary
) -> None:
    faults = [raising(pieces(vocabulary, f"Sentence {n}.")) for n in (3, 4, 11)]

    def fault(inside: list[Any]) -> None:
        for one in faults:
            one(inside)

    stage = Stage(model, Echo(slots=16, fault=fault))
    records = stage.broker.add(*[f"Sentence {n}." for n in range(16)])
    stage.settle(records)
    failed = [n for n, code in enumerate(stage.broker.codes(records)) if code == "internal"]
    assert failed == [3, 4, 11]


def test_a_failure_of_the_batch_as_such_fails_nobody(model: LanguageModel) -> None:
    def too_large(inside: list[Any]) -> None:
        if len(inside) > 3:
            raise MemoryError

    stage = Stage(model, Echo(slots=16, fault=too_large))
    records = stage.broker.add(*[f"Sentence {n}." for n in range(16)])
    stage.settle(records)
    assert None not in stage.broker.texts(records)


def test_a_broken_engine_ends_the_worker_rather_than_every_record(model: LanguageModel) -> None:
    def always(inside: list[Any]) -> None:
        raise RuntimeError("device-side assert")

    stage = Stage(model, Echo(fault=always))
    stage.broker.add("One.", "Two.")
    with pytest.raises(EngineBroken):
        stage.turn(10)
    assert stage.broker.outcomes == {}
    assert len(stage.held.places) == 2


def test_fresh_work_waits_while_the_guilty_one_is_looked_for(
    model: LanguageModel, vocabulary: Vocabulary
) -> None:
    stage = Stage(model, Echo(slots=4, fault=raising(pieces(vocabulary, "Two."))))
    records = stage.broker.add("One.", "Two.", "Three.")
    stage.turn()
    later = stage.broker.add("Four.")
    stage.settle(records + later)
    assert stage.broker.codes(records + later) == [None, "internal", None, None]
    assert stage.engine.batches[-1] == [4]


def test_logs_never_hold_source_text(
    model: LanguageModel, vocabulary: Vocabulary, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stage = Stage(model, Echo(fault=raising(pieces(vocabulary, "Secret one."))))
    records = stage.broker.add("Secret one.", "Secret two.", "Secret \ud800 three.")
    records += stage.broker.add("Secret four.", attempts=4)
    stage.settle(records)
    assert caplog.text
    assert "Secret" not in caplog.text


# ── Suspects ──────────────────────────────────────────────────────────────────────────────────


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


# ── Redis away ────────────────────────────────────────────────────────────────────────────────


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


def test_a_dead_lease_thread_ends_the_loop(stage: Stage) -> None:
    stage.held.dead = True
    with pytest.raises(RuntimeError, match="lease thread"):
        stage.turn()


# ── Reading and reporting ─────────────────────────────────────────────────────────────────────


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


# ── Draining ──────────────────────────────────────────────────────────────────────────────────


def test_a_drain_finishes_the_slots_and_hands_back_the_rest(stage: Stage) -> None:
    stage.engine.width = 0
    records = stage.broker.add(*[f"Sentence {n}." for n in range(9)])
    stage.turn(3)
    stage.engine.width = 1
    unread = stage.broker.add("Unread.")
    stage.worker.drain(stage.now_s, 30.0)
    assert not stage.worker.finished
    for _ in range(20):
        stage.turn()
    assert stage.worker.finished
    done = [r for r in records if r.place in stage.broker.outcomes]
    back = [r for r in records if r.place in stage.broker.returned]
    assert len(done) + len(back) == 9
    assert len(back) >= 1
    assert list(stage.broker.queues["bulk"]) == unread
    assert not stage.held.places


def test_at_the_end_of_the_grace_everything_goes_back(stage: Stage) -> None:
    stage.engine.width = 1
    records = stage.broker.add("One. Two. Three. Four. Five. Six.", "Seven.")
    stage.turn()
    stage.worker.drain(stage.now_s, 30.0)
    stage.turn()
    stage.now_s += 25.0
    stage.turn()
    assert stage.worker.finished
    assert stage.broker.returned == [record.place for record in records]
    assert not stage.held.places
    assert stage.engine.free == stage.engine.slots


def test_a_suspect_in_the_slots_is_not_made_fresh_again(stage: Stage) -> None:
    stage.engine.width = 0
    stage.broker.add("One.", attempts=2)
    stage.turn()
    stage.worker.drain(stage.now_s, 30.0)
    stage.now_s += 25.0
    stage.turn()
    assert stage.worker.finished
    assert stage.broker.returned == []
    assert stage.broker.outcomes == {}
    assert not stage.held.places
