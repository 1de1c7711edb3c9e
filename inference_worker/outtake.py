"""The last stage of a worker: token ids to text, sentences to records, records to Redis. It has a
thread and a connection of its own, so that the next step runs while the last one's are written."""

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

from broker.wire import Completion, Delivery, Details, ErrorCode, Outcome
from inference_worker.draft import Draft, LanguageModel, Spot, Unit, failure
from inference_worker.engine.protocol import Hypothesis
from inference_worker.holdings import Holdings
from inference_worker.memory import SentenceMemory
from inference_worker.quality.review import Again
from inference_worker.rate import Rate
from inference_worker.roster import Roster

log = logging.getLogger(__name__)

_NO_DETAILS = Details()


class Sink(Protocol):
    """What the stage needs of ``broker.consumer.Consumer``."""

    worker: str

    def complete(self, completions: Sequence[Completion]) -> int: ...
    def discard(self, deliveries: Sequence[Delivery]) -> None: ...


@dataclass(frozen=True, slots=True)
class Translated:
    """A sentence that left the engine at ``ended_s``, its hypotheses best first."""

    unit: Unit
    hypotheses: Sequence[Hypothesis]
    ended_s: float


@dataclass(frozen=True, slots=True)
class End:
    """How a delivery ends: with an outcome, as a dead letter too, or without one (discarded)."""

    delivery: Delivery
    outcome: Outcome | None
    dead: bool = False
    draft: Draft | None = None  # what was translated


class Outtake:
    """Other stages post what has ended, in batches; ``turn`` writes it."""

    def __init__(
        self,
        consumer: Sink,
        roster: Roster,
        holdings: Holdings,
        model: LanguageModel,
        rate: Rate,
        memory: SentenceMemory | None,
    ) -> None:
        self._consumer = consumer
        self._roster = roster
        self._holdings = holdings
        self._model = model
        self._rate = rate
        self._memory = memory
        self._posted: queue.SimpleQueue[Sequence[Translated | Draft | End] | None] = (
            queue.SimpleQueue()
        )
        self._unwritten = 0  # batches posted
        self._written = threading.Condition()

    # ── Called by the other stages ───────────────────────────────────────────────────────────

    def translated(self, sentences: Sequence[Translated]) -> None:
        """The sentences that one step ended."""
        self._post(sentences)

    def done(self, drafts: Sequence[Draft]) -> None:
        """Drafts of which nothing needs the engine."""
        self._post(drafts)

    def fail(self, delivery: Delivery, code: ErrorCode, detail: str) -> None:
        """A record that has no translation; of a draft only if ``Holdings.close`` says so."""
        outcome = failure(delivery, self._model.name, self._consumer.worker, code, detail)
        self._post([End(delivery, outcome, dead=code == "poison")])

    def give_up(self, unit: Unit, detail: str) -> None:
        """A sentence that has no translation: the records that it is of have none either."""
        drafts = {spot.draft for spot in unit.spots}
        self._roster.drop(drafts)
        for draft in drafts:
            if self._holdings.close(draft):
                self.fail(draft.delivery, "internal", detail)

    def discard(self, delivery: Delivery) -> None:
        """A record that needs no outcome."""
        self._post([End(delivery, None)])

    def _post(self, batch: Sequence[Translated | Draft | End]) -> None:
        if not batch:
            return
        with self._written:
            self._unwritten += 1
        self._posted.put(batch)

    def all_written(self, wait_s: float) -> bool:
        """Whether Redis has all that was posted, for which this waits up to ``wait_s``."""
        with self._written:
            return self._written.wait_for(lambda: not self._unwritten, wait_s)

    def close(self) -> None:
        """Nothing will be posted after this."""
        self._posted.put(None)

    # ── One turn ─────────────────────────────────────────────────────────────────────────────

    def turn(self, wait_s: float) -> bool:
        """Writes what has been posted, for which it waits up to ``wait_s``; False once ``close``
        was called. Raises BrokerUnavailable only when the consumer gives up."""
        batches = self._batches(wait_s)
        posted = [batch for batch in batches if batch is not None]
        self._write([end for batch in posted for one in batch for end in self._ends(one)])
        with self._written:
            self._unwritten -= len(posted)
            self._written.notify_all()
        if self._memory:
            self._memory.keep()
        return len(posted) == len(batches)

    def _batches(self, wait_s: float) -> list[Sequence[Translated | Draft | End] | None]:
        """What was posted until now; not what is added meanwhile, so that writing has its turn
        however fast the engine is."""
        try:
            first = self._posted.get(timeout=wait_s) if wait_s > 0 else self._posted.get_nowait()
        except queue.Empty:
            return []
        return [first, *(self._posted.get_nowait() for _ in range(self._posted.qsize()))]

    def _ends(self, posted: Translated | Draft | End) -> Sequence[End]:
        if isinstance(posted, End):
            return [posted]
        drafts = [posted] if isinstance(posted, Draft) else self._settle(posted)
        return [
            End(draft.delivery, draft.outcome(self._consumer.worker), draft=draft)
            for draft in drafts
            if draft.done and self._holdings.close(draft)
        ]

    def _settle(self, translated: Translated) -> list[Draft]:
        """Puts a translation where it belongs, but where it is worth a second try and that can be
        waited for; returns the drafts that this concerns."""
        unit = translated.unit
        try:
            reading = self._model.reviewer.review(unit.case, translated.hypotheses)
        except Exception as error:  # one bad translation must not take others along
            requests = {spot.draft.delivery.record.request for spot in unit.spots}
            log.error(
                "a translation cannot be read: %s; of requests %s",
                *(type(error).__name__, ", ".join(sorted(requests))),
            )
            self.give_up(unit, "The model's translation cannot be read.")
            return []
        spots = unit.spots
        if isinstance(reading, Again):
            spots = self._try(unit, reading)
            reading = reading.otherwise
        # What there is to say of a translation is said every time: such a one is not remembered.
        elif self._memory and unit.name and reading.clean and not reading.mended:
            self._memory.note(unit.name, reading.text)
        for spot in spots:
            spot.draft.settle_reading(spot.at, reading, translated.ended_s)
        return list(dict.fromkeys(spot.draft for spot in spots))

    def _try(self, unit: Unit, again: Again) -> list[Spot]:
        """Hands a sentence to the engine once more, for those who can wait for it; returns the
        spots of the others."""
        patient: list[Spot] = []
        others: list[Spot] = []
        for spot in unit.spots:
            (patient if self._can_wait(spot.draft) else others).append(spot)
        if patient:
            unit.spots, unit.case = patient, again.case
            unit.sentence = replace(unit.sentence, source=again.source, no_repeat_ngram=again.ngram)
            if any(spot.draft.delivery.attempts > 1 for spot in patient):
                self._roster.try_apart([unit])
            else:
                self._roster.add([unit])
        return others

    def _can_wait(self, draft: Draft) -> bool:
        """Whether a second try may still be in time for a draft, and somebody wants it."""
        now_s = perf_counter()
        least_s = self._rate.from_engine[draft.lane].fast_s(now_s)
        return self._holdings.holds(draft) and not draft.late(now_s, least_s)

    def _write(self, ends: Sequence[End]) -> None:
        """Waits for Redis if need be, and gives up only when told to."""
        if not ends:
            return
        completions = [Completion(e.delivery, e.outcome, e.dead) for e in ends if e.outcome]
        unneeded = [end.delivery for end in ends if end.outcome is None]
        if completions:
            self._consumer.complete(completions)
        if unneeded:
            self._consumer.discard(unneeded)
        self._holdings.let_go([end.delivery for end in ends])
        now_s = perf_counter()
        for end in ends:
            if end.outcome is not None and end.outcome.text is not None:
                details = end.outcome.details or _NO_DETAILS
                self._rate.completed(end.delivery.record.cost, details)
            if end.draft is not None and end.draft.admitted_s is not None:
                lane = end.delivery.record.lane
                self._rate.from_begin[lane].note(now_s, now_s - end.draft.begun_s)
                self._rate.from_engine[lane].note(now_s, now_s - end.draft.admitted_s)
