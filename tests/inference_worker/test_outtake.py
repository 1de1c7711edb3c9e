"""Tests of ``inference_worker.outtake``: what a turn takes, what it leaves to the next, and what is
tried once more."""

import re
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

import pytest

from broker.warnings import warning
from broker.wire import Delivery
from inference_worker import outtake
from inference_worker.draft import Draft, LanguageModel, prepared
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence
from inference_worker.holdings import Holdings
from inference_worker.memory import SentenceMemory
from inference_worker.outtake import Outtake
from inference_worker.quality.review import SelfCheck
from inference_worker.rate import Rate
from inference_worker.roster import Roster
from inference_worker.tokens import Vocabulary
from tests.inference_worker.engines import Echo, raising
from tests.inference_worker.parties import Broker, Held, Shelf
from tests.inference_worker.stage import HEARTBEAT_S, Stage, pieces


class Busy(list[Draft]):
    """A batch; while it is being looked at, the engine ends another one."""

    def __init__(self, outtake: Outtake, first: Draft, *rest: Draft) -> None:
        super().__init__([first])
        self._outtake = outtake
        self._rest = rest

    def __iter__(self) -> Iterator[Draft]:
        if self._rest:
            self._outtake.done(Busy(self._outtake, *self._rest))
        return super().__iter__()


def test_results_are_written_however_fast_the_engine_is(vocabulary: Vocabulary) -> None:
    model = LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=200)
    broker, holdings = Broker(), Holdings(Held())
    outtake = Outtake(broker, Roster(8), holdings, model, Rate(), None)

    def ended(delivery: Delivery) -> Draft:
        draft = prepared(delivery, model, 1)  # has no sentence
        holdings.open(draft)
        return draft

    outtake.done(Busy(outtake, *map(ended, broker.add("1", "2", "3"))))
    for turns in (1, 2, 3):
        assert outtake.turn(0.0)
        assert len(broker.outcomes) == turns
    assert outtake.all_written(0.0)


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
