"""One run of one document: from its upload to its result, or to the point where it is handed back.

A run may end at any moment, and another may begin while the old one is thought dead: whatever a run
learns is in Redis before it counts, and two runs of a document wait for the same requests.
"""

import asyncio
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import TypeVar

from rq import Retry

from broker.document_settings import DocumentSettings as SharedSettings
from broker.documents import MAX_REPORTED, Document, Documents, Ending, Flaw, Part
from broker.errors import BrokerError, BrokerUnavailable, Overloaded
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from broker.wire import Outcome, Receipt, State, Submission
from document_formats.confinement import Bounds, split
from document_formats.encodings import Encoding
from document_formats.kinds import BY_NAME
from document_formats.pieces import pieces, sendable, texts
from document_formats.spans import Malformed, Span, assemble
from document_worker.batches import Batch, batches
from document_worker.settings import DocumentWorkerSettings

log = logging.getLogger("dragoman.documents")

MOST_ATTEMPTS = 5  # runs that took their process down before the document is given up
LOOK_S = 0.5  # between looks at progress, cancellation and the parent process
PARTING_S = 5.0  # for the last word to Redis of a process that stops
RETRY_S = 1.0  # while Redis is away
LEAST_WAIT_S, MOST_WAIT_S = 1.0, 60.0  # when overloaded, whatever the estimate
UNMEASURED_WAIT_S = 5.0
AGAIN = Retry(max=1_000_000, enqueue_at_front=True)  # what a job returns to be run again

Answer = TypeVar("Answer")


class Halt(Enum):
    """Why a run stops before its document has ended."""

    STOPPING = "the process is about to stop"
    OVER = "the document was cancelled or is gone"


class RunFailed(Exception):
    """A run that could not even end its document. Says nothing but which error it was: RQ keeps the
    tracebacks of its jobs, and an error's message may quote a text."""


@dataclass(frozen=True)
class Translator:
    """The task, with the settings of its process."""

    broker: BrokerSettings
    shared: SharedSettings
    settings: DocumentWorkerSettings

    def __call__(self, tenant: str, document_id: str) -> Retry | None:
        """Runs in a process of its own (RQ's work horse). Raises RunFailed alone."""
        try:
            return asyncio.run(self._run(tenant, document_id))
        except Exception as error:
            log.error("document %s: a mistake", document_id, exc_info=error)
            raise RunFailed(type(error).__name__) from None

    async def _run(self, tenant: str, document_id: str) -> Retry | None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        documents = Documents(self.broker, self.shared)
        producer = Producer(self.broker, f"document-{secrets.token_hex(8)}")
        waiter = Waiter(producer)
        try:
            document = await reached(lambda: documents.begin(tenant, document_id))
            if document is None:
                log.info("document %s: no longer wanted", document_id)
                return None
            await waiter.start()
            bounds = Bounds(self.shared.parse_memory_mib, self.shared.parse_cpu_s)
            run = Run(
                document, documents, producer, waiter, self.settings.requests_in_flight, bounds
            )
            return await run.to_the_end(stop)
        finally:
            await waiter.stop()
            await producer.close()
            await documents.close()


async def reached(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer of a call that may be repeated, however long Redis is away."""
    while True:
        try:
            answer = await call()
        except BrokerUnavailable as error:
            log.warning("%s; trying again", error)
            await asyncio.sleep(RETRY_S)
        else:
            heed_cancellation()
            return answer


def heed_cancellation() -> None:
    """Raises the CancelledError that a call has swallowed: redis-py does that with one that comes
    in the tick of its answer, and whoever went on would wait for what nobody ends any more."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Run:
    """The run of one document."""

    def __init__(
        self,
        document: Document,
        documents: Documents,
        producer: Producer,
        waiter: Waiter,
        requests_in_flight: int,
        bounds: Bounds,
    ) -> None:
        self._document = document
        self._who = (document.tenant, document.id)
        self._documents = documents
        self._producer = producer
        self._waiter = waiter
        self._in_flight = requests_in_flight
        self._bounds = bounds
        self._parent = os.getppid()
        self._began = time.monotonic()
        self._total = document.total
        self._parts: dict[str, Part] = {}  # finished batches by digest
        self._open: dict[str, str] = {}  # requests in flight by digest
        self._uses: dict[str, int] = {}  # texts of the document that a batch stands for

    async def to_the_end(self, stop: asyncio.Event) -> Retry | None:
        """Ends the document, or answers that it is to be run again."""
        work = asyncio.ensure_future(self._guarded())
        guard = asyncio.ensure_future(self._guard(stop))
        await asyncio.wait({work, guard}, return_when=asyncio.FIRST_COMPLETED)
        for task in (work, guard):
            task.cancel()
        await asyncio.gather(work, guard, return_exceptions=True)
        if not work.cancelled():
            return None
        if guard.result() is Halt.STOPPING:
            with suppress(TimeoutError):
                async with asyncio.timeout(PARTING_S):
                    await reached(lambda: self._documents.hand_back(*self._who))
            log.info("document %s: handed back", self._document.id)
            return AGAIN
        for request in list(self._open.values()):
            await self._cancel(request)
        log.info("document %s: cancelled", self._document.id)
        return None

    async def _guarded(self) -> None:
        """The work; whatever goes wrong in it becomes the document's end."""
        try:
            await self._work()
        except Malformed as error:
            await self._fail(error.code, error.detail, error.line or 0)
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            log.error("document %s: a mistake", self._document.id, exc_info=error)
            await self._fail("internal", "The document worker made a mistake; its log says more.")

    async def _guard(self, stop: asyncio.Event) -> Halt:
        """Writes progress; returns when the run has to stop."""
        while True:
            if stop.is_set() or os.getppid() != self._parent:
                return Halt.STOPPING
            try:
                done = await self._count_done()
                wanted = await self._documents.progress(*self._who, done, self._total)
                heed_cancellation()
                if not wanted:
                    return Halt.OVER
            except BrokerError as error:
                log.warning("progress: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()

    async def _count_done(self) -> int:
        done = sum(self._uses[digest] for digest in self._parts if digest in self._uses)
        requests = [
            (digest, request) for digest, request in self._open.items() if digest not in self._parts
        ]
        found = await asyncio.gather(
            *(self._producer.status(self._document.tenant, request) for _, request in requests)
        )
        return min(done + sum(status.done for status in found if status), self._total)

    # ── The work ─────────────────────────────────────────────────────────────────────────────

    async def _work(self) -> None:
        document, upload = self._document, self._document.upload
        if document.attempts > MOST_ATTEMPTS:
            detail = f"Its document worker died {MOST_ATTEMPTS} times while it ran."
            return await self._fail("worker_lost", detail)
        body = await reached(lambda: self._documents.source(*self._who))
        if body is None:
            return await self._fail("lost", "The upload is gone. Send it again.")
        log.info(
            "document %s: begun, %s, %d bytes, attempt %d",
            document.id,
            upload.kind,
            upload.size,
            document.attempts,
        )
        encoding = Encoding(upload.encoding, bytes.fromhex(upload.mark))
        text = encoding.decode(body)
        spans = await split(body, upload.kind, upload.names, encoding, self._bounds)
        await self._translate(spans)
        translations, flaws = self._collect(spans)
        whole = assemble(text, spans, translations, BY_NAME[upload.kind].write)
        result, written = encoding.encode(whole)
        await self._finish(flaws, result, written)

    async def _translate(self, spans: list[Span]) -> None:
        """Fills ``_parts`` with a part for each batch."""
        self._parts = await reached(lambda: self._documents.parts(*self._who))
        self._total = 0
        waiting: list[Batch] = []
        for batch in batches(texts(spans)):
            self._total += len(batch.texts)
            known = batch.digest in self._uses
            self._uses[batch.digest] = self._uses.get(batch.digest, 0) + len(batch.texts)
            if not known and batch.digest not in self._parts:
                waiting.append(batch)
        rest = iter(waiting)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._in_flight, len(waiting))):
                group.create_task(self._lane(rest))

    async def _lane(self, rest: Iterator[Batch]) -> None:
        """One request after the other; as many lanes run as requests may be in flight."""
        for batch in rest:
            part = await self._part(batch)
            await reached(partial(self._documents.keep, *self._who, batch.digest, part))
            self._parts[batch.digest] = part
            self._open.pop(batch.digest, None)

    async def _part(self, batch: Batch) -> Part:
        """The outcomes of a batch. What has none when the document's deadline passes is expired."""
        tenant = self._document.tenant
        remember = partial(self._documents.remember, *self._who, batch.digest)
        request = await reached(lambda: remember(self._producer.new_request_id()))
        if not request:
            await asyncio.Event().wait()  # no longer open: the guard ends the run
        self._open[batch.digest] = request
        missing: tuple[None, str, str] = (None, "cancelled", "The text's request was cancelled.")
        try:
            async with asyncio.timeout(self._left_s()):
                await self._await_end(self._submission(request, batch))
        except TimeoutError:
            await self._cancel(request)
            missing = (None, "expired", "The document's deadline passed before this text.")
        view = await reached(lambda: self._producer.view(tenant, request))
        outcomes = view[1] if view else {}
        if view and view[0].state != "cancelled":
            missing = (None, "internal", "The outcome of this text was lost.")
        return [
            missing if outcome is None else _outcome(outcome)
            for outcome in map(outcomes.get, range(len(batch.texts)))
        ]

    async def _cancel(self, request: str) -> None:
        await reached(lambda: self._producer.cancel(self._document.tenant, request))

    def _left_s(self) -> float:
        """Until the document's deadline."""
        left_ms = self._document.deadline_ms - self._document.now_ms
        return max(0.0, left_ms / 1000 - (time.monotonic() - self._began))

    def _submission(self, request: str, batch: Batch) -> Submission:
        upload = self._document.upload
        return Submission(
            id=request,
            tenant=self._document.tenant,
            model=upload.model,
            lane="bulk",
            source=upload.source,
            target=upload.target,
            ids=list(range(len(batch.texts))),
            texts=list(batch.texts),
            deadline_ms=max(1, int(self._left_s() * 1000)),
            kept=True,
            weight=upload.weight,
            tenant_cap=upload.tenant_cap,
        )

    async def _await_end(self, submission: Submission) -> None:
        """Submits a request, or finds it submitted, and waits until it has ended."""
        tenant = submission.tenant
        with self._waiter.watching(tenant, submission.id, submission) as watch:
            receipt = await self._submit(submission)
            if receipt.duplicate:  # by an earlier run, whose process it tells
                status = await reached(lambda: self._producer.watch(tenant, submission.id))
                if status is not None and status.finished:
                    return
            while not await watch.finished(MOST_WAIT_S):
                pass

    async def _submit(self, submission: Submission) -> Receipt:
        while True:
            try:
                return await reached(lambda: self._producer.submit(submission))
            except Overloaded as error:
                wait_s = error.estimated_wait_s or UNMEASURED_WAIT_S
                await asyncio.sleep(min(max(wait_s, LEAST_WAIT_S), MOST_WAIT_S))

    # ── The end ──────────────────────────────────────────────────────────────────────────────

    def _collect(self, spans: list[Span]) -> tuple[list[str], list[Flaw]]:
        """Each span's translation, and what stayed as it was."""
        outcomes = (
            outcome for batch in batches(texts(spans)) for outcome in self._parts[batch.digest]
        )
        translations: list[str] = []
        flaws: list[Flaw] = []
        for span in spans:
            if not sendable(span.text):
                detail = "The text holds half of a surrogate pair. Send whole characters."
                flaws.append(Flaw(span.line, "invalid_unicode", detail))
                translations.append(span.text)
                continue
            translated = []
            for piece in pieces(span.text):
                text, code, detail = next(outcomes)
                if text is None:
                    flaws.append(Flaw(span.line, code, detail))
                translated.append(piece if text is None else text)
            translations.append("".join(translated))
        return translations, flaws

    async def _finish(self, flaws: list[Flaw], result: bytes, encoding: Encoding) -> None:
        unsent = sum(flaw.code == "invalid_unicode" for flaw in flaws)
        total = self._total + unsent
        state: State = "failed" if flaws and len(flaws) == total else "done"
        error = flaws[0] if state == "failed" else None
        ending = Ending(len(flaws), encoding.name, flaws[:MAX_REPORTED], error)
        self._total = total
        await reached(lambda: self._documents.progress(*self._who, total, total))
        await reached(lambda: self._documents.finish(*self._who, state, total, ending, result))
        log.info(
            "document %s: %s, %d texts, %d of them failed",
            self._document.id,
            state,
            total,
            len(flaws),
        )

    async def _fail(self, code: str, detail: str, line: int = 0) -> None:
        ending = Ending(error=Flaw(line, code, detail))
        done = sum(len(part) for part in self._parts.values())
        await reached(lambda: self._documents.finish(*self._who, "failed", done, ending, b""))
        log.warning("document %s: failed (%s)", self._document.id, code)


def _outcome(outcome: Outcome) -> tuple[str | None, str, str]:
    if outcome.error is not None:
        return None, outcome.error.code, outcome.error.detail
    return outcome.text, "", ""
