"""The texts of one document on their way through the model workers' queue: which requests they are
sent in, what has come back, and what is still under way.

Each batch has one request, whose id is in Redis before it is submitted: two runs of a document, one
of them thought dead, wait for the same requests.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from functools import partial

from broker.documents import Document, Documents, Part
from broker.errors import Overloaded
from broker.producer import Producer
from broker.waiter import Waiter
from broker.wire import Outcome, Receipt, Submission
from document_worker.batches import Batch, batches
from document_worker.patience import reached

LEAST_WAIT_S, MOST_WAIT_S = 1.0, 60.0  # when overloaded, whatever the estimate
UNMEASURED_WAIT_S = 5.0


class Requests:
    """The requests of one document in one run. None of its methods raises BrokerUnavailable but
    ``done``: the others wait until Redis is back."""

    def __init__(
        self,
        document: Document,
        documents: Documents,
        producer: Producer,
        waiter: Waiter,
        in_flight: int,
    ) -> None:
        self.total = document.total  # texts
        self._document = document
        self._who = (document.tenant, document.id)
        self._documents = documents
        self._producer = producer
        self._waiter = waiter
        self._in_flight = in_flight  # requests at once
        self._began = time.monotonic()
        self._parts: dict[str, Part] = {}  # finished batches by digest
        self._open: dict[str, str] = {}  # requests in flight by digest
        self._uses: dict[str, int] = {}  # texts of the document that a batch stands for

    async def translate(self, texts: Iterable[str]) -> None:
        """Returns when every text has an outcome, which the document's deadline is at the latest;
        never, if the document is no longer open."""
        self._parts = await reached(lambda: self._documents.parts(*self._who))
        self.total = 0
        waiting: list[Batch] = []
        for batch in batches(texts):
            self.total += len(batch.texts)
            known = batch.digest in self._uses
            self._uses[batch.digest] = self._uses.get(batch.digest, 0) + len(batch.texts)
            if not known and batch.digest not in self._parts:
                waiting.append(batch)
        rest = iter(waiting)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._in_flight, len(waiting))):
                group.create_task(self._lane(rest))

    def outcomes(self, texts: Iterable[str]) -> Iterator[tuple[str | None, str, str]]:
        """What came back for the texts that were translated, in order: a translation, or None with
        the code and the detail of an error."""
        return (outcome for batch in batches(texts) for outcome in self._parts[batch.digest])

    @property
    def answered(self) -> int:
        """How many texts have an outcome that was kept."""
        return sum(len(part) for part in self._parts.values())

    async def done(self) -> int:
        """How many texts have come back, those of requests under way included. Raises
        BrokerUnavailable."""
        done = sum(self._uses[digest] for digest in self._parts if digest in self._uses)
        requests = [request for digest, request in self._open.items() if digest not in self._parts]
        found = await asyncio.gather(
            *(self._producer.status(self._document.tenant, request) for request in requests)
        )
        return min(done + sum(status.done for status in found if status), self.total)

    async def cancel(self) -> None:
        """Cancels what is under way."""
        for request in list(self._open.values()):
            await self._cancel(request)

    async def _cancel(self, request: str) -> None:
        await reached(lambda: self._producer.cancel(self._document.tenant, request))

    # ── One batch ────────────────────────────────────────────────────────────────────────────

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


def _outcome(outcome: Outcome) -> tuple[str | None, str, str]:
    if outcome.error is not None:
        return None, outcome.error.code, outcome.error.detail
    return outcome.text, "", ""
