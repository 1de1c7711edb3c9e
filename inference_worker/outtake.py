"""The last stage of a worker: token ids to text, sentences to records, records to Redis. It has a
thread and a connection of its own, so that the next step runs while the last one's are written."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

from broker.wire import Completion, Delivery, Details, ErrorCode, Outcome
from inference_worker.draft import Draft, LanguageModel, Unit, failure
from inference_worker.engine.protocol import Hypothesis
from inference_worker.holdings import Holdings
from inference_worker.memory import SentenceMemory
from inference_worker.quality.review import Again
from inference_worker.rate import Rate
from inference_worker.roster import Roster

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
        ends: list[End] = []
        taken, going_on = 0, True
        try:
            posted = self._posted.get(timeout=wait_s) if wait_s > 0 else self._posted.get_nowait()
            while going_on := posted is not None:
                taken += 1
                ends += (end for one in posted or () for end in self._ends(one))
                posted = self._posted.get_nowait()
        except queue.Empty:
            pass
        self._write(ends)
        with self._written:
            self._unwritten -= taken
            self._written.notify_all()
        if self._memory:
            self._memory.keep()
        return going_on

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
        """Puts a translation where it belongs, unless it is worth a second try; returns the drafts
        that this concerns."""
        unit = translated.unit
        reading = self._model.reviewer.review(unit.case, translated.hypotheses)
        if isinstance(reading, Again):
            self._try(unit, reading)
            return []
        # What there is to say of a translation is said every time: such a one is not remembered.
        if self._memory and unit.name and reading.clean and not reading.mended:
            self._memory.note(unit.name, reading.text)
        for spot in unit.spots:
            spot.draft.settle_reading(spot.at, reading, translated.ended_s)
        return list(dict.fromkeys(spot.draft for spot in unit.spots))

    def _try(self, unit: Unit, again: Again) -> None:
        """Hands a sentence to the engine once more."""
        unit.case = again.case
        unit.sentence = replace(unit.sentence, source=again.source, no_repeat_ngram=again.ngram)
        if any(spot.draft.delivery.attempts > 1 for spot in unit.spots):
            self._roster.try_apart([unit])
        else:
            self._roster.add([unit])

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
