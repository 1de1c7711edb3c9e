"""One run of one document: from its upload to its result, or to the point where it is handed back.

A run may end at any moment, and another may begin while the old one is thought dead: whatever a run
learns is in Redis before it counts, and two runs of a document wait for the same requests.
"""

import asyncio
import logging
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from rq import Retry

from broker.document_settings import DocumentSettings as SharedSettings
from broker.documents import MAX_REPORTED, Document, Documents, Ending, Flaw
from broker.errors import BrokerError
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from broker.wire import State
from document_formats.confinement import Bounds, split
from document_formats.encodings import Encoding
from document_formats.kinds import BY_NAME
from document_formats.pieces import pieces, sendable, texts
from document_formats.spans import Malformed, Span, assemble
from document_worker.patience import heed_cancellation, reached
from document_worker.requests import Requests
from document_worker.settings import DocumentWorkerSettings

log = logging.getLogger("dragoman.documents")

MOST_ATTEMPTS = 5  # runs that took their process down before the document is given up
LOOK_S = 0.5  # between looks at progress, cancellation and the parent process
PARTING_S = 5.0  # for the last word to Redis of a process that stops
AGAIN = Retry(max=1_000_000, enqueue_at_front=True)  # what a job returns to be run again


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
            in_flight = self.settings.requests_in_flight
            requests = Requests(document, documents, producer, waiter, in_flight)
            return await Run(document, documents, requests, bounds).to_the_end(stop)
        finally:
            await waiter.stop()
            await producer.close()
            await documents.close()


class Run:
    """The run of one document."""

    def __init__(
        self, document: Document, documents: Documents, requests: Requests, bounds: Bounds
    ) -> None:
        self._document = document
        self._who = (document.tenant, document.id)
        self._documents = documents
        self._requests = requests
        self._bounds = bounds
        self._parent = os.getppid()
        self._unsent = 0  # texts that no request may hold

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
        await self._requests.cancel()
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
                done = await self._requests.done()
                wanted = await self._documents.progress(*self._who, done, self._total)
                heed_cancellation()
                if not wanted:
                    return Halt.OVER
            except BrokerError as error:
                log.warning("progress: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()

    @property
    def _total(self) -> int:
        return self._requests.total + self._unsent

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
        await self._requests.translate(texts(spans))
        translations, flaws = self._collect(spans)
        whole = assemble(text, spans, translations, BY_NAME[upload.kind].write)
        result, written = encoding.encode(whole)
        await self._finish(flaws, result, written)

    # ── The end ──────────────────────────────────────────────────────────────────────────────

    def _collect(self, spans: list[Span]) -> tuple[list[str], list[Flaw]]:
        """Each span's translation, and what stayed as it was."""
        outcomes = self._requests.outcomes(texts(spans))
        translations: list[str] = []
        flaws: list[Flaw] = []
        for span in spans:
            if not sendable(span.text):
                detail = "The text holds half of a surrogate pair. Send whole characters."
                flaws.append(Flaw(span.line, "invalid_unicode", detail))
                self._unsent += 1
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
        total = self._total
        state: State = "failed" if flaws and len(flaws) == total else "done"
        error = flaws[0] if state == "failed" else None
        ending = Ending(len(flaws), encoding.name, flaws[:MAX_REPORTED], error)
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
        done = self._requests.answered
        await reached(lambda: self._documents.finish(*self._who, "failed", done, ending, b""))
        log.warning("document %s: failed (%s)", self._document.id, code)
