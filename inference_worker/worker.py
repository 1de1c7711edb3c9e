"""The worker's loop: read what fits, translate, complete. One turn is one call with the time as an
argument; what waits or sleeps is handed in, so that tests need neither threads nor clocks."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Protocol

from broker.consumer import Verdict
from broker.errors import BrokerUnavailable
from broker.wire import Completion, Delivery, ErrorCode, Outcome, WorkerEntry
from inference_worker.draft import Draft, LanguageModel, Unit, failure, prepared
from inference_worker.engine.protocol import Engine, Finished
from inference_worker.hang import Watchdog
from inference_worker.rate import Rate
from inference_worker.roster import Roster
from inference_worker.warmth import probe

log = logging.getLogger(__name__)

MOST_DELIVERIES = 3  # a record that was taken once more is poison
RETRY_S = 1.0  # after Redis went away
IDLE_MS = 1_000  # longest blocking read; a signal is noticed after it
MOST_NAMED = 16  # requests in a line of the log
HAND_BACK_S = 5.0  # before the grace ends, what is not finished goes back

_DETAILS: dict[Verdict, tuple[ErrorCode, str]] = {
    "expired": ("expired", "The deadline passed before the record was translated."),
    "cancelled": ("cancelled", "The request was cancelled."),
}


class EngineBroken(Exception):
    """The engine fails on a sentence that it translated when it was started."""


class Source(Protocol):
    """What the loop needs of ``broker.consumer.Consumer``."""

    worker: str

    def read(self, interactive: int, bulk: int, block_ms: int) -> list[Delivery]: ...
    def begin(self, deliveries: Sequence[Delivery]) -> list[Verdict]: ...
    def complete(self, completions: Sequence[Completion]) -> int: ...
    def discard(self, deliveries: Sequence[Delivery]) -> None: ...
    def reclaim(self, limit: int) -> list[Delivery]: ...
    def hand_back(self, deliveries: Sequence[Delivery]) -> None: ...
    def heartbeat(self, entry: WorkerEntry, batch_records: int) -> None: ...


class Holder(Protocol):
    """What the loop needs of ``broker.leases.Leases``."""

    def hold(self, deliveries: Iterable[Delivery]) -> None: ...
    def release(self, deliveries: Iterable[Delivery]) -> None: ...
    def check(self) -> None: ...


class Worker:
    """A consumer, its leases and an engine, turned over by ``turn``."""

    def __init__(
        self,
        consumer: Source,
        leases: Holder,
        engine: Engine,
        model: LanguageModel,
        watchdog: Watchdog,
        *,
        heartbeat_s: float,
        reclaim_s: float,
        started_ms: int,
        wait: Callable[[float], object],
    ) -> None:
        self._consumer = consumer
        self._leases = leases
        self._engine = engine
        self._model = model
        self._watchdog = watchdog
        self._heartbeat_s = heartbeat_s
        self._reclaim_s = reclaim_s
        self._started_ms = started_ms
        self._wait = wait
        self._roster = Roster(engine.slots)
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._taken: list[Delivery] = []  # read, but Redis went away before they were begun
        self._ended: list[tuple[Delivery, Outcome | None, bool]] = []  # None: discard
        self._rate = Rate()
        self._next_key = 1
        self._next_report_s = self._next_reclaim_s = self._retry_s = -math.inf
        self._reclaimed = False  # the last thing taken in was left by another worker
        self._drain_until_s: float | None = None

    # ── One turn ─────────────────────────────────────────────────────────────────────────────

    def turn(self, now_s: float) -> None:
        """Takes work in, runs one step, hands results out. Raises EngineBroken."""
        self._leases.check()
        if now_s >= self._retry_s:
            try:
                self._talk(now_s)
            except BrokerUnavailable as error:
                log.warning("%s; trying again", error)
                self._retry_s = now_s + RETRY_S
        self._flush()
        self._step()
        self._flush()
        if now_s < self._retry_s and not self._roster.inside and not self.finished:
            self._wait(RETRY_S)

    def _talk(self, now_s: float) -> None:
        """Everything that may find Redis away; what it has done by then stays valid."""
        if now_s >= self._next_report_s:
            self._report()
            self._next_report_s = now_s + self._heartbeat_s
        if self._drain_until_s is not None:
            self._hand_back(now_s)
        else:
            self._take(now_s)

    @property
    def finished(self) -> bool:
        """Whether a drained worker has nothing left to do."""
        return self._drain_until_s is not None and not (self._drafts or self._taken or self._ended)

    # ── Taking work in ───────────────────────────────────────────────────────────────────────

    def _take(self, now_s: float) -> None:
        if self._taken:
            self._begin()
        if self._roster.trying:
            return
        rooms = self._roster.room("interactive"), self._roster.room("bulk")
        if not any(rooms):
            return
        if now_s >= self._next_reclaim_s and not self._reclaimed:
            self._next_reclaim_s = now_s + self._reclaim_s
            if found := self._consumer.reclaim(self._records(max(rooms))):
                # There may be more, but fresh work comes first then: suspects hold up everything.
                self._next_reclaim_s, self._reclaimed = now_s, True
                self._hold(found)
                return
        self._reclaimed = False
        interactive, bulk = map(self._records, rooms)
        self._hold(self._consumer.read(interactive, bulk, self._block_ms(now_s)))

    def _block_ms(self, now_s: float) -> int:
        """How long a read may wait: not at all while there is something to do."""
        if self._drafts or self._ended:
            return 0
        next_s = min(self._next_report_s, self._next_reclaim_s)
        return max(1, min(IDLE_MS, int((next_s - now_s) * 1000)))

    def _records(self, sentences: int) -> int:
        """How many records bring about so many sentences."""
        return math.ceil(sentences / self._rate.sentences_per_record)

    def _hold(self, deliveries: list[Delivery]) -> None:
        # After a pause longer than the lease a worker may reclaim what it is working on itself.
        new = [delivery for delivery in deliveries if delivery.place not in self._drafts]
        if not new:
            return
        self._leases.hold(new)
        self._taken += new
        self._begin()

    def _begin(self) -> None:
        verdicts = self._consumer.begin(self._taken)
        taken, self._taken = self._taken, []
        suspects: list[Unit] = []
        for delivery, verdict in zip(taken, verdicts, strict=True):
            if verdict != "go":
                self._end(delivery, verdict)
            elif delivery.attempts > MOST_DELIVERIES:
                log.error(
                    "record %d of request %s is a dead letter after %d deliveries",
                    delivery.record.index,
                    delivery.record.request,
                    delivery.attempts,
                )
                self._fail(delivery, "poison", "The record ended every worker it was given to.")
            elif (draft := self._prepare(delivery)) is not None:
                self._drafts[delivery.place] = draft
                if draft.done:
                    self._complete(draft)
                elif delivery.attempts > 1:
                    suspects += draft.units
                else:
                    self._roster.add(draft)
        self._roster.try_apart(suspects)

    def _prepare(self, delivery: Delivery) -> Draft | None:
        record = delivery.record
        for code in (record.source, record.target):
            if code not in self._model.vocabulary.languages:
                detail = f"The model {self._model.name} does not know the language {code!r:.20}."
                self._fail(delivery, "unsupported_language", detail)
                return None
        try:
            draft = prepared(delivery, self._model, self._next_key)
        except Exception as error:  # one bad record must not fail its neighbours
            log.error(
                "record %d of request %s cannot be taken apart: %s",
                *(record.index, record.request, type(error).__name__),
            )
            self._fail(delivery, "internal", "The text cannot be taken apart into sentences.")
            return None
        self._next_key += len(draft.units)
        self._rate.prepared(len(draft.units))
        return draft

    # ── Translating ──────────────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        admitted = self._roster.admit(self._engine.free)
        if not self._roster.inside:
            return
        began_s = perf_counter()
        for unit in admitted:
            if unit.draft.admitted_s is None:
                unit.draft.admitted_s = began_s
        try:
            with self._watchdog:
                if admitted:
                    self._engine.admit([unit.sentence for unit in admitted])
                finished = self._engine.step()
        except Exception:
            self._recover()
            return
        ended_s = perf_counter()
        self._rate.busy(ended_s - began_s)
        for sentence in finished:
            self._settle(sentence, ended_s)

    def _settle(self, finished: Finished, now_s: float) -> None:
        unit = self._roster.finish(finished.key)
        if unit is None:
            return
        unit.draft.settle(unit.at, finished.hypotheses[0], now_s)
        if unit.draft.done:
            self._complete(unit.draft)

    def _recover(self) -> None:
        """After a failed step: narrows the sentences inside down to the guilty one."""
        requests = {unit.draft.delivery.record.request for unit in self._roster.inside.values()}
        log.exception(
            "a step over %d sentences failed, of requests %s",
            *(len(self._roster.inside), ", ".join(sorted(requests)[:MOST_NAMED])),
        )
        self._engine.reset()
        guilty = self._roster.bisect()
        if guilty is None:
            return
        try:
            with self._watchdog:
                probe(self._engine, self._model.vocabulary)
        except Exception as error:
            # The sentence need not be at fault; a broken engine would fail record after record.
            raise EngineBroken("the engine fails on what it translated before") from error
        draft = guilty.draft
        self._forget([draft])
        self._fail(draft.delivery, "internal", "The model failed on this text.")

    # ── Handing results out ──────────────────────────────────────────────────────────────────

    def _complete(self, draft: Draft) -> None:
        del self._drafts[draft.delivery.place]
        self._ended.append((draft.delivery, draft.outcome(self._consumer.worker), False))
        self._rate.completed(draft.delivery.record.cost)

    def _fail(self, delivery: Delivery, code: ErrorCode, detail: str) -> None:
        worker, name = self._consumer.worker, self._model.name
        outcome = failure(delivery, name, worker, code, detail)
        self._ended.append((delivery, outcome, code == "poison"))

    def _end(self, delivery: Delivery, verdict: Verdict) -> None:
        if verdict == "over":
            self._ended.append((delivery, None, False))
        else:
            self._fail(delivery, *_DETAILS[verdict])

    def _flush(self) -> None:
        """Completes what has ended; waits for Redis if need be, and gives up only when told to."""
        if not self._ended:
            return
        completions = [Completion(d, outcome, dead) for d, outcome, dead in self._ended if outcome]
        unneeded = [delivery for delivery, outcome, _ in self._ended if outcome is None]
        if completions:
            self._consumer.complete(completions)
        if unneeded:
            self._consumer.discard(unneeded)
        self._leases.release([delivery for delivery, _, _ in self._ended])
        self._ended.clear()

    def _forget(self, drafts: Iterable[Draft]) -> None:
        gone = set(drafts)
        for draft in gone:
            self._drafts.pop(draft.delivery.place, None)
        if keys := self._roster.drop(gone):
            self._engine.drop(keys)

    # ── Reporting ────────────────────────────────────────────────────────────────────────────

    def _report(self) -> None:
        """The heartbeat; also looks whether anybody still wants what is being worked on."""
        engine = self._engine
        entry = WorkerEntry(
            id=self._consumer.worker,
            model=self._model.name,
            device=engine.device,
            engine=engine.name,
            slots=engine.slots,
            rate=self._rate.measure(),
            completed=self._rate.records,
            started_ms=self._started_ms,
            seen_ms=0,
        )
        self._consumer.heartbeat(entry, self._records(engine.slots))
        drafts = list(self._drafts.values())
        if not drafts:
            return
        verdicts = self._consumer.begin([draft.delivery for draft in drafts])
        unwanted = [(d, v) for d, v in zip(drafts, verdicts, strict=True) if v != "go"]
        self._forget(draft for draft, _ in unwanted)
        for draft, verdict in unwanted:
            self._end(draft.delivery, verdict)

    # ── Draining ─────────────────────────────────────────────────────────────────────────────

    def drain(self, now_s: float, grace_s: float) -> None:
        """Reads no more; finishes what is in the slots, as far as the grace allows."""
        self._drain_until_s = now_s + max(0.0, grace_s - HAND_BACK_S)
        self._next_report_s = max(self._next_report_s, now_s)

    def _hand_back(self, now_s: float) -> None:
        """Gives back what has not been in the slots, and at the end everything.

        Suspects that are in the slots then stay under their lease and move on when it runs out:
        handing them back would make them fresh, and one of them may be why nothing finishes.
        """
        late = self._drain_until_s is not None and now_s >= self._drain_until_s
        drafts = [draft for draft in self._drafts.values() if late or not draft.started]
        back = self._taken + [
            draft.delivery
            for draft in drafts
            if not (draft.started and draft.delivery.attempts > 1)
        ]
        if back:
            self._consumer.hand_back(back)
            log.info("handed back %d records", len(back))
        self._leases.release(back)
        self._leases.release([draft.delivery for draft in drafts])
        self._taken = []
        self._forget(drafts)
