"""The translation memory in a worker: what it names, recalls and keeps, and who joins whom."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.memory import Memory, Name
from broker.settings import BrokerSettings
from broker.warnings import Code, warning
from broker.wire import Delivery, Details
from inference_worker.draft import LanguageModel, prepared
from inference_worker.engine.protocol import Finished, Hypothesis
from inference_worker.memory import SentenceMemory
from inference_worker.quality.review import SelfCheck
from inference_worker.tokens import Vocabulary
from tests.inference_worker.engines import Echo, raising
from tests.inference_worker.parties import Broker, Shelf
from tests.inference_worker.stage import Stage
from tests.redis_server import RedisServer


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def stage(model: LanguageModel, shelf: Shelf) -> Stage:
    return Stage(model, memory=SentenceMemory(shelf, model))


@pytest.fixture
def store(broker_settings: BrokerSettings) -> Iterator[Memory]:
    made = Memory(broker_settings)
    yield made
    made.close()


def details(stage: Stage, delivery: Delivery) -> Details:
    found = stage.broker.outcomes[delivery.place].details
    assert found is not None
    return found


def shares(stage: Stage, *deliveries: Delivery) -> list[tuple[int, int]]:
    """Of each record, how many sentences were cached and coalesced."""
    found = [details(stage, delivery) for delivery in deliveries]
    return [(one.cached, one.coalesced) for one in found]


def translated(stage: Stage) -> int:
    """Sentences that were in the engine."""
    return len({key for batch in stage.engine.batches for key in batch})


# ── Names ─────────────────────────────────────────────────────────────────────────────────────


def test_whatever_decides_a_translation_is_in_its_name(model: LanguageModel) -> None:
    def name(changed: LanguageModel, *parts: str) -> Name:
        return SentenceMemory(Shelf(), changed).name(*parts)

    usual = ("default", "en", "ja", "One.")
    names = [
        name(model, *usual),
        name(replace(model, revision="r2"), *usual),
        name(replace(model, name="other"), *usual),
        name(replace(model, recipe="beams=1"), *usual),
        name(model, "default", "en", "de", "One."),
        name(model, "default", "de", "ja", "One."),
        name(model, "default", "en", "ja", "One"),
        name(model, "default", "en", "jaO", "ne."),
    ]
    assert len({found.digest for found in names}) == len(names)
    assert name(model, *usual) == names[0]
    other = name(model, "other", "en", "ja", "One.")
    assert (other.tenant, other.digest) == ("other", names[0].digest)


# ── Recalling and keeping ─────────────────────────────────────────────────────────────────────


def test_a_sentence_that_comes_again_needs_no_engine(stage: Stage, shelf: Shelf) -> None:
    (first,) = stage.broker.add("One. Two.\n")
    stage.settle([first])
    again = stage.broker.add("Two.\r\n\r\n One.", "Two. Three.")
    stage.settle(again)
    assert stage.broker.texts(again) == ["Two.\r\n\r\n One.", "Two. Three."]
    assert shares(stage, first, *again) == [(0, 0), (2, 0), (1, 0)]
    assert translated(stage) == 3
    assert details(stage, again[0]).inference_ms == 0.0


def test_one_call_looks_up_and_one_keeps_what_came_together(stage: Stage, shelf: Shelf) -> None:
    records = stage.broker.add("One. Two.", "Three.", "")
    stage.settle(records)
    assert (shelf.asked, shelf.kept) == ([3], [3])


def test_what_has_no_sentence_asks_nothing(stage: Stage, shelf: Shelf) -> None:
    stage.settle(stage.broker.add("", "42"))
    assert shelf.asked == []


def test_tenants_never_share(stage: Stage) -> None:
    first = stage.broker.add("One.", tenant="a")
    stage.settle(first)
    second = stage.broker.add("One.", tenant="b")
    stage.settle(second)
    together = stage.broker.add("Two.", tenant="a") + stage.broker.add("Two.", tenant="b")
    stage.settle(together)
    assert shares(stage, *first, *second, *together) == [(0, 0)] * 4
    assert translated(stage) == 4


def test_truncated_translations_are_not_kept(vocabulary: Vocabulary, shelf: Shelf) -> None:
    model = LanguageModel("small", "r1", vocabulary, 64, max_length=4)
    stage = Stage(model, memory=SentenceMemory(shelf, model))
    records = stage.broker.add("This has many more pieces than two.", "This has many more pieces.")
    stage.settle(records)
    assert shelf.held == {}


def test_failed_translations_are_not_kept(model: LanguageModel, shelf: Shelf) -> None:
    engine = Echo(fault=raising(tuple(model.vocabulary.pieces("bad"))))
    stage = Stage(model, engine, memory=SentenceMemory(shelf, model))
    records = stage.broker.add("bad", "good")
    stage.settle(records)
    assert stage.broker.codes(records) == ["internal", None]
    assert list(shelf.held.values()) == ["good"]


def test_an_empty_translation_is_not_kept(model: LanguageModel, shelf: Shelf) -> None:
    memory = SentenceMemory(shelf, model)
    memory.note(memory.name("default", "en", "ja", "One."), "")
    memory.keep()
    assert shelf.kept == []


def test_pieces_the_model_does_not_know_are_told_every_time(stage: Stage) -> None:
    first = stage.broker.add("So ☃ it is.")
    stage.settle(first)
    second = stage.broker.add("So ☃ it is.")
    stage.settle(second)
    assert details(stage, *second).warnings == details(stage, *first).warnings


class Second(Echo):
    """Says back what it was given and, as its second best, the same German sentence every time."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._other = Hypothesis(tuple(vocabulary.pieces("So ist es an diesem Tag.")), -1.0)

    def step(self) -> list[Finished]:
        return [Finished(one.key, (*one.hypotheses, self._other)) for one in super().step()]


@pytest.mark.parametrize(
    ("mode", "text", "warned"),
    [
        ("report", "So it is on this day.", "copied"),
        ("retry", "So ist es an diesem Tag.", "mended"),
    ],
)
def test_what_a_warning_is_given_for_is_not_kept(
    vocabulary: Vocabulary, shelf: Shelf, mode: SelfCheck, text: str, warned: Code
) -> None:
    model = LanguageModel("small", "r1", vocabulary, 64, 200, self_check=mode)
    stage = Stage(model, Second(vocabulary), memory=SentenceMemory(shelf, model))
    for _ in range(2):
        records = stage.broker.add("So it is on this day.", target="de")
        stage.settle(records)
        assert stage.broker.texts(records) == [text]
        assert details(stage, *records).warnings == [warning(warned, 1, 1)]
    assert shelf.held == {}


def test_suspects_are_recalled_too(stage: Stage) -> None:
    stage.settle(stage.broker.add("One."))
    stage.now_s += 10.0  # it is time to look for what others left
    left = stage.broker.add("One.", "Two.", attempts=2)
    stage.settle(left)
    assert shares(stage, *left) == [(1, 0), (0, 0)]


def test_without_a_memory_everything_is_translated(model: LanguageModel) -> None:
    stage = Stage(model)
    records = stage.broker.add("One.", "One.")
    stage.settle(records)
    assert (shares(stage, *records), translated(stage)) == ([(0, 0)] * 2, 2)


PIECES = (
    *("One.", "Two!", "3", "So it is.", "日本語。", "😀", " - ", " ", "\t", "\n", "\r\n", "\u2028"),
    *("%s", "{name} is here.", "https://example.org/a?b", "<b>Bold</b> text.", "a@b.org"),
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.fixture(scope="module")
def lasting(_redis_process: RedisServer) -> Iterator[Memory]:
    """A store for all examples of a test."""
    made = Memory(BrokerSettings(redis_url=_redis_process.url))
    yield made
    made.close()


@given(texts=st.lists(TEXTS, min_size=1, max_size=5))
def test_answers_from_memory_equal_those_from_the_engine(
    lasting: Memory, vocabulary: Vocabulary, texts: list[str]
) -> None:
    model = LanguageModel("small", "r1", vocabulary, max_source_tokens=16, max_length=200)
    lasting.forget("default")
    answers = []
    for memory in (None, SentenceMemory(lasting, model), SentenceMemory(lasting, model)):
        stage = Stage(model, memory=memory)
        records = stage.broker.add(*texts)
        stage.settle(records)
        answers.append([(stage.broker.texts([r]), details(stage, r).warnings) for r in records])
    assert answers[0] == answers[1] == answers[2]
    assert translated(stage) == 0


def test_a_memory_that_lost_redis_is_no_memory(
    model: LanguageModel, redis_server: RedisServer, store: Memory
) -> None:
    stage = Stage(model, memory=SentenceMemory(store, model))
    stage.settle(stage.broker.add("One."))
    redis_server.kill()
    records = stage.broker.add("One. Two.")
    stage.settle(records)
    assert (stage.broker.texts(records), shares(stage, *records)) == (["One. Two."], [(0, 0)])
    redis_server.start()
    stage.settle(stage.broker.add("Three."))
    again = stage.broker.add("Three.")
    stage.settle(again)
    assert shares(stage, *again) == [(1, 0)]


# ── Joining what is in flight ─────────────────────────────────────────────────────────────────


def slow(model: LanguageModel, shelf: Shelf, slots: int = 8) -> Stage:
    """A worker whose engine ends one sentence a step."""
    return Stage(model, Echo(slots=slots, width=1), memory=SentenceMemory(shelf, model))


def test_equal_sentences_in_flight_are_translated_once(model: LanguageModel, shelf: Shelf) -> None:
    stage = slow(model, shelf)
    early = stage.broker.add("One. Two. One.", "Two.")
    stage.turn()
    late = stage.broker.add("Two. Three.")
    stage.settle(early + late)
    assert stage.broker.texts(early + late) == ["One. Two. One.", "Two.", "Two. Three."]
    assert shares(stage, *early, *late) == [(0, 1), (0, 1), (0, 1)]
    assert translated(stage) == 3
    assert all(details(stage, one).inference_ms > 0 for one in early + late)


def test_lanes_do_not_wait_for_each_other(model: LanguageModel, shelf: Shelf) -> None:
    stage = slow(model, shelf)
    records = stage.broker.add("One.") + stage.broker.add("One.", lane="interactive")
    stage.settle(records)
    assert shares(stage, *records) == [(0, 0)] * 2


def test_who_joined_goes_on_when_the_first_is_cancelled(model: LanguageModel, shelf: Shelf) -> None:
    stage = slow(model, shelf)
    filler, first, second = stage.broker.add("Filler.", "One.", "One.")
    stage.turn()
    stage.broker.verdicts[first.place] = "cancelled"
    stage.now_s += 10.0  # a heartbeat is due
    stage.settle([filler, first, second])
    assert stage.broker.codes([first]) == ["cancelled"]
    assert stage.broker.texts([second]) == ["One."]
    assert translated(stage) == 2


def test_a_sentence_nobody_waits_for_is_joined_by_nobody(
    model: LanguageModel, shelf: Shelf
) -> None:
    stage = slow(model, shelf)
    filler, first = stage.broker.add("Filler.", "One.")
    stage.turn()
    stage.broker.verdicts[first.place] = "cancelled"
    stage.now_s += 10.0
    stage.turn()
    (later,) = stage.broker.add("One.")
    stage.settle([filler, first, later])
    assert (stage.broker.texts([later]), shares(stage, later)) == (["One."], [(0, 0)])


def test_who_joined_a_sentence_that_breaks_the_model_fails_with_it(
    model: LanguageModel, shelf: Shelf
) -> None:
    engine = Echo(fault=raising(tuple(model.vocabulary.pieces("bad"))))
    stage = Stage(model, engine, memory=SentenceMemory(shelf, model))
    records = stage.broker.add("bad", "good", "bad", "bad")
    stage.settle(records)
    assert stage.broker.codes(records) == ["internal", None, "internal", "internal"]


def test_suspects_join_nobody(model: LanguageModel, shelf: Shelf) -> None:
    stage = slow(model, shelf)
    records = stage.broker.add("One.", "One.", attempts=2) + stage.broker.add("One.")
    stage.settle(records)
    assert [coalesced for _, coalesced in shares(stage, *records)] == [0, 0, 0]


def test_who_joined_is_handed_back_alone(model: LanguageModel, shelf: Shelf) -> None:
    stage = slow(model, shelf, slots=2)
    first, second = stage.broker.add("One. Two. Three. Four.", "Four.")
    stage.turn()
    stage.worker.drain(stage.now_s, 100.0)
    stage.settle([first])
    assert stage.broker.returned == [second.place]
    assert stage.broker.texts([first]) == ["One. Two. Three. Four."]


def test_prepared_units_have_no_name_until_they_are_looked_up(
    model: LanguageModel, shelf: Shelf
) -> None:
    draft = prepared(Broker().delivery("One. Two.", "bulk", 1), model, 1)
    assert [unit.name for unit in draft.units] == [None, None]
    memory: Any = SentenceMemory(shelf, model)
    assert memory.recall([draft]) == set()
    assert [unit.name for unit in draft.units] == [
        memory.name("default", "en", "de", text) for text in ("One.", "Two.")
    ]
