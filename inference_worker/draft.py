"""A record while it is translated: its sentences on the way in, its text on the way out."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

from broker.memory import Name
from broker.warnings import MEANING, Code, warning
from broker.wire import Delivery, Details, ErrorCode, Failure, Lane, Outcome
from inference_worker.engine.protocol import Sentence
from inference_worker.normalisation import normalised
from inference_worker.quality.review import Case, Reading, Reviewer, SelfCheck
from inference_worker.segments import Segments, split
from inference_worker.tokens import Vocabulary


@dataclass(frozen=True)
class LanguageModel:
    """What the loop knows about the model besides its engine."""

    name: str
    revision: str
    vocabulary: Vocabulary
    max_source_tokens: int
    max_length: int  # generated tokens at most; start, language and end included
    recipe: str = ""  # what else decides a translation: engine, number format, decoding rules
    self_check: SelfCheck = "off"

    @cached_property
    def reviewer(self) -> Reviewer:
        """Who judges what the model says."""
        return Reviewer(
            self.vocabulary,
            self.self_check,
            longest=self.max_length - 2,  # start and language are not in a hypothesis
            most_tokens=self.max_source_tokens,
        )


@dataclass(frozen=True, eq=False, slots=True)
class Spot:
    """Where a translation belongs: sentence ``at`` of a draft."""

    draft: "Draft"
    at: int


@dataclass(eq=False, slots=True)
class Unit:
    """One sentence as the engine sees it, and every spot that waits for its translation.

    Its life: made by ``prepared`` with a single spot (intake thread), waiting in the roster, inside
    the engine (decoding thread), settled into its spots (outtake thread). Three things may happen
    on the way without any other change to the worker:

    - It never enters the roster, since its translation is known (``SentenceMemory.recall``), or
      since a unit of the same name is in the roster (``Roster.enter``).
    - The spot of such a unit is added to ``spots``, under the roster's lock. The unit then lives as
      long as one of its drafts does.
    - After it left the engine it is given another ``sentence`` (the key may stay) and goes back
      through ``Roster.add``, or ``Roster.try_apart`` for a suspect: ``Outtake._settle``.
    """

    sentence: Sentence
    lane: Lane
    spots: list[Spot]
    case: Case  # what its translation is judged by
    name: Name | None = None  # equal for sentences that have the same translation, if any has one


class Draft:
    """A record in progress. ``units`` are the sentences still to be translated, in order.

    Belongs to the intake thread until its units enter the roster, and from then on to the outtake
    thread; only ``admitted_s`` is set by the decoding thread.
    """

    def __init__(
        self, delivery: Delivery, segments: Segments, model: LanguageModel, first_key: int
    ) -> None:
        record = delivery.record
        self.delivery = delivery
        self.segments = segments
        self.units: list[Unit] = []
        self.warnings: list[str] = []
        self.begun_s = perf_counter()
        self.admitted_s: float | None = None
        self.ended_s = 0.0
        self.tokenize_ms = 0.0
        self.cached = 0
        self.coalesced = 0
        self._model = model
        self._texts: list[str | None] = []
        self._remarks: Counter[Code] = Counter()  # sentences by what there is to say of them
        languages = record.source, record.target
        for at, text in enumerate(map(normalised, segments.sentences)):
            encoded = model.vocabulary.encode(text, record.source)
            target = model.vocabulary.language(record.target)
            urgent = record.lane == "interactive"
            sentence = Sentence(first_key + at, encoded.ids, target, urgent=urgent)
            case = Case(text, languages, encoded.unknown)
            self.units.append(Unit(sentence, record.lane, [Spot(self, at)], case))
            self._texts.append(None)
        self._left = len(self.units)

    @property
    def lane(self) -> Lane:
        """That of its record."""
        return self.delivery.record.lane

    @property
    def done(self) -> bool:
        """Whether no sentence is left to translate."""
        return self._left == 0

    def late(self, now_s: float, least_s: float) -> bool:
        """Whether its deadline, as far as its worker knows, is less than so many seconds away;
        callers who joined it may have more time."""
        passed_s = now_s - self.begun_s
        left_s = (self.delivery.record.deadline_ms - self.delivery.read_ms) / 1000 - passed_s
        return left_s <= least_s

    @property
    def started(self) -> bool:
        """Whether a sentence has been in the engine."""
        return self.admitted_s is not None

    def settle(self, at: int, text: str) -> None:
        """Takes the translation of one sentence."""
        if self._texts[at] is None:
            self._left -= 1
        self._texts[at] = text

    def settle_reading(self, at: int, reading: Reading, ended_s: float) -> None:
        """Takes the translation of one sentence that left the engine at ``ended_s``, and what is to
        be said of it."""
        self.settle(at, reading.text)
        self._remarks.update(reading.findings.keys())
        self._remarks["mended"] += reading.mended
        self.ended_s = max(self.ended_s, ended_s)

    def outcome(self, worker: str) -> Outcome:
        """The record's translation; only once ``done``."""
        texts = [text or "" for text in self._texts]
        text = self.segments.join(texts, self.delivery.record.target)
        return Outcome(text=text, details=self._details(worker))

    def _details(self, worker: str) -> Details:
        spent_s = 0.0
        if self.admitted_s is not None:
            spent_s = max(0.0, self.ended_s - self.admitted_s)
        delivery = self.delivery
        return Details(
            model=self._model.name,
            worker=worker,
            attempts=delivery.attempts,
            sentences=len(self.units),
            queue_ms=float(max(0, delivery.read_ms - delivery.record.accepted_ms)),
            tokenize_ms=round(self.tokenize_ms, 3),
            inference_ms=round(spent_s * 1000, 3),
            cached=self.cached,
            coalesced=self.coalesced,
            warnings=[
                *self.warnings,
                *(
                    warning(code, self._remarks[code], len(self.units))
                    for code in MEANING
                    if self._remarks[code]
                ),
            ],
        )


def prepared(delivery: Delivery, model: LanguageModel, first_key: int) -> Draft:
    """A record taken apart into sentences and token ids, keyed from ``first_key`` on.

    Its languages must be the model's. A text whose source is its target is left as it is.
    """
    began_s = perf_counter()
    record = delivery.record
    if record.source == record.target:
        draft = Draft(delivery, Segments(record.source, (), (record.text,)), model, first_key)
        draft.warnings.append(warning("same_language", 1, 1))
        return draft
    count, limit = model.vocabulary.count, model.max_source_tokens
    segments = split(record.text, record.source, count, limit)
    draft = Draft(delivery, segments, model, first_key)
    draft.tokenize_ms = (perf_counter() - began_s) * 1000
    return draft


def failure(delivery: Delivery, model: str, worker: str, code: ErrorCode, detail: str) -> Outcome:
    """The end of a record that has no translation."""
    details = Details(model=model, worker=worker, attempts=delivery.attempts)
    return Outcome(error=Failure(code, detail), details=details)
