"""The first stage of a worker: report, reclaim, read, take records apart. It has a thread of its
own, which stays about a batch ahead of the engine."""

import logging
import math
from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from broker.errors import BrokerUnavailable
from broker.wire import Delivery, ErrorCode, Verdict, WorkerEntry
from inference_worker.draft import Draft, LanguageModel, Unit, prepared
from inference_worker.engine.protocol import Engine
from inference_worker.holdings import Holdings, Place
from inference_worker.memory import SentenceMemory
from inference_worker.outtake import Outtake
from inference_worker.rate import Rate
from inference_worker.roster import Roster

log = logging.getLogger(__name__)

MOST_DELIVERIES = 3  # a record that was taken once more is poison
RETRY_S = 1.0  # after Redis went away
IDLE_S = 1.0  # longest blocking read; a signal is noticed after it
FULL_S = 0.02  # how often to look for interactive work while bulk has no room
SOON_S = 0.001  # how soon a result can be there, where it is not known
LOOK_S = 0.25  # how often to look for records whose deadline comes while they are here

_DETAILS: dict[Verdict, tuple[ErrorCode, str]] = {
    "expired": ("expired", "The record could not be translated before its deadline."),
    "cancelled": ("cancelled", "The request was cancelled."),
}


class Source(Protocol):
    """What the stage needs of ``broker.consumer.Consumer``."""

    worker: str

    def read(self, interactive: int, bulk: int, block_ms: int) -> list[Delivery]: ...
    def begin(self, deliveries: Sequence[Delivery], least_s: float = 0.0) -> list[Verdict]: ...
    def reclaim(self, limit: int) -> list[Delivery]: ...
    def hand_back(self, deliveries: Sequence[Delivery]) -> None: ...
    def heartbeat(self, entry: WorkerEntry, batch_records: int) -> None: ...


class Intake:
    """A consumer in front of a roster, turned over by ``turn``."""

    def __init__(
        self,
        consumer: Source,
        engine: Engine,
        model: LanguageModel,
        roster: Roster,
        holdings: Holdings,
        outtake: Outtake,
        rate: Rate,
        memory: SentenceMemory | None,
        *,
        heartbeat_s: float,
        reclaim_s: float,
        started_ms: int,
    ) -> None:
        self._consumer = consumer
        self._engine = engine  # for what it says of itself; only decoding uses it
        self._model = model
        self._roster = roster
        self._holdings = holdings
        self._outtake = outtake
        self._rate = rate
        self._memory = memory
        self._heartbeat_s = heartbeat_s
        self._reclaim_s = reclaim_s
        self._started_ms = started_ms
        self._taken: list[Delivery] = []  # read, but Redis went away before they were begun
        self._returning: list[Delivery] = []  # to be handed back
        self._next_key = 1
        self._next_report_s = self._next_reclaim_s = self._retry_s = -math.inf
        self._next_look_s = -math.inf
        self._reclaimed = False  # the last thing taken in was left by another worker
        self._crowded = False  # the last read brought as much as there was room for
        self._drain_until_s: float | None = None
        self.closed = False  # nothing is read any more

    # ── One turn ─────────────────────────────────────────────────────────────────────────────

    def turn(self, now_s: float) -> float:
        """Reports when it is time to, then takes work in or, while draining, hands it back.

        Returns for how long the next turn has nothing to do unless the roster makes room.
        """
        if now_s < self._retry_s:
            return self._retry_s - now_s
        try:
            if now_s >= self._next_report_s:
                self._report()
                self._next_report_s = now_s + self._heartbeat_s
            if now_s >= self._next_look_s:
                self._give_up_late()
                self._next_look_s = now_s + LOOK_S
            if self._drain_until_s is None:
                return self._take(now_s)
            self.closed = True
            self._hand_back(late=now_s >= self._drain_until_s)
            return FULL_S
        except BrokerUnavailable as error:
            log.warning("%s; trying again", error)
            self._retry_s = now_s + RETRY_S
            return RETRY_S

    def drain(self, until_s: float) -> None:
        """Reads no more from the next turn on, and lets go of what has not been in the engine; at
        ``until_s`` of everything."""
        self._drain_until_s = until_s

    @property
    def draining(self) -> bool:
        """Whether ``drain`` was called."""
        return self._drain_until_s is not None

    # ── Taking work in ───────────────────────────────────────────────────────────────────────

    def _take(self, now_s: float) -> float:
        if self._taken:
            self._begin()
        rooms = self._roster.room("interactive"), self._roster.room("bulk")
        if not any(rooms):
            return FULL_S
        if now_s >= self._next_reclaim_s and not self._reclaimed:
            self._next_reclaim_s = now_s + self._reclaim_s
            if found := self._consumer.reclaim(self._records(max(rooms))):
                # There may be more, but fresh work comes first then: suspects hold up everything.
                self._next_reclaim_s, self._reclaimed = now_s, True
                self._hold(found)
                return 0.0
        self._reclaimed = False
        interactive, bulk = map(self._records, rooms)
        block_s = 0.0  # while a lane is full: waiting, the read would not see room being made
        if all(rooms):
            next_s = min(self._next_report_s, self._next_reclaim_s) - now_s
            block_s = min(IDLE_S if self._holdings.empty else LOOK_S, max(0.0, next_s))
        read = self._consumer.read(interactive, bulk, math.ceil(block_s * 1000))
        lanes = [delivery.record.lane for delivery in read]
        self._crowded = (
            lanes.count("interactive") >= interactive > 0 or lanes.count("bulk") >= bulk > 0
        )
        self._hold(read)
        return 0.0 if read or all(rooms) else FULL_S

    def _records(self, sentences: int) -> int:
        """How many records bring about so many sentences."""
        return math.ceil(sentences / self._rate.sentences_per_record)

    def _hold(self, deliveries: list[Delivery]) -> None:
        if new := self._holdings.take(deliveries):
            self._taken += new
            self._begin()

    def _begin(self) -> None:
        verdicts = self._verdicts()
        taken, self._taken = self._taken, []
        drafts: list[Draft] = []
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
                detail = "The record ended every worker it was given to."
                self._outtake.fail(delivery, "poison", detail)
            elif (draft := self._prepare(delivery)) is not None:
                drafts.append(draft)
        self._enter(drafts)

    def _verdicts(self) -> list[Verdict]:
        """What to do with what was taken. While the engine has all it can hold, a record has less
        time than until its deadline: it must come through here first."""
        full, now_s = self._roster.full, perf_counter()
        if not full and not self._crowded:
            return self._consumer.begin(self._taken)
        found: dict[Place, Verdict] = {}
        for lane, passage in self._rate.from_begin.items():
            if group := [one for one in self._taken if one.record.lane == lane]:
                least_s = max(SOON_S, passage.fast_s(now_s) if full else 0.0)
                verdicts = self._consumer.begin(group, least_s)
                found.update(zip((one.place for one in group), verdicts, strict=True))
        return [found[one.place] for one in self._taken]

    def _prepare(self, delivery: Delivery) -> Draft | None:
        record = delivery.record
        for code in (record.source, record.target):
            if code not in self._model.vocabulary.languages:
                detail = f"The model {self._model.name} does not know the language {code!r:.20}."
                self._outtake.fail(delivery, "unsupported_language", detail)
                return None
        try:
            draft = prepared(delivery, self._model, self._next_key)
        except Exception as error:  # one bad record must not fail its neighbours
            log.error(
                "record %d of request %s cannot be taken apart: %s",
                *(record.index, record.request, type(error).__name__),
            )
            detail = "The text cannot be taken apart into sentences."
            self._outtake.fail(delivery, "internal", detail)
            return None
        self._next_key += len(draft.units)
        self._rate.prepared(len(draft.units))
        return draft

    def _enter(self, drafts: Sequence[Draft]) -> None:
        """Hands drafts on: what needs no engine to the outtake, the rest to the roster.

        What was read together is looked up together: sentences whose translation is remembered
        need no engine.
        """
        known = self._memory.recall(drafts) if self._memory else set()
        for draft in drafts:
            self._holdings.open(draft)
        self._outtake.done([draft for draft in drafts if draft.done])
        fresh: list[Unit] = []
        suspects: list[Unit] = []
        for draft in drafts:
            units = [unit for unit in draft.units if unit not in known]
            (suspects if draft.delivery.attempts > 1 else fresh).extend(units)
        self._roster.try_apart(suspects)
        self._roster.enter(fresh)

    def _end(self, delivery: Delivery, verdict: Verdict) -> None:
        if verdict == "over":
            self._outtake.discard(delivery)
        else:
            self._outtake.fail(delivery, *_DETAILS[verdict])

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
            busy=self._rate.busy(perf_counter()),
            sentences=self._rate.sentences,
            cached=self._rate.cached,
            coalesced=self._rate.coalesced,
            warnings=dict(self._rate.warnings),
        )
        self._consumer.heartbeat(entry, self._records(engine.slots))
        self._look_again(self._holdings.drafts(), 0.0)

    def _give_up_late(self) -> None:
        """Ends what waits here and can no longer be in time: it would make others late too."""
        now_s, full = perf_counter(), self._roster.full
        drafts = self._holdings.drafts()
        self._look_again([one for one in drafts if one.started and one.late(now_s, 0.0)], 0.0)
        for lane, passage in self._rate.from_engine.items():
            least_s = passage.fast_s(now_s) if full else 0.0
            waiting = [one for one in drafts if one.lane == lane and not one.started]
            self._look_again([one for one in waiting if one.late(now_s, least_s)], least_s)

    def _look_again(self, drafts: Sequence[Draft], least_s: float) -> None:
        """Drops drafts that nobody wants any more, or that cannot be done in time."""
        if not drafts:
            return
        verdicts = self._consumer.begin([draft.delivery for draft in drafts], least_s)
        for draft, verdict in zip(drafts, verdicts, strict=True):
            if verdict != "go" and self._holdings.close(draft):
                self._roster.drop({draft})
                self._end(draft.delivery, verdict)

    # ── Draining ─────────────────────────────────────────────────────────────────────────────

    def _hand_back(self, late: bool) -> None:
        """Gives back what has not been in the slots, and at the end everything.

        Suspects that are in the slots then stay under their lease and move on when it runs out:
        handing them back would make them fresh, and one of them may be why nothing finishes.
        """
        drafts = [
            draft
            for draft in self._holdings.drafts()
            if (late or not draft.started) and self._holdings.close(draft)
        ]
        self._roster.drop(set(drafts))
        self._returning += self._taken
        for draft in drafts:
            if draft.started and draft.delivery.attempts > 1:
                self._holdings.let_go([draft.delivery])
            else:
                self._returning.append(draft.delivery)
        self._taken = []
        if self._returning:
            self._consumer.hand_back(self._returning)
            log.info("handed back %d records", len(self._returning))
            self._holdings.let_go(self._returning)
            self._returning = []
