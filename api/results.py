"""From the broker's outcomes to the bodies of the contract."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec
from starlette.responses import Response

from api.openapi import JSON
from api.problems import Problem
from api.schemas import Job, JobTicket, RecordError, RecordResult, Timings, TranslationResult
from broker.wire import Details, Outcome, Receipt, RequestStatus, State

_CANCELLED = RecordError("cancelled", "The request was cancelled before this record was done.")
_LOST = RecordError("internal", "The outcome of this record was lost.")
_NO_DETAILS = Details()


class Ended(Protocol):
    """What the result of a request is made from, besides the outcomes."""

    @property
    def ids(self) -> list[str | int]: ...
    @property
    def model(self) -> str: ...
    @property
    def state(self) -> State: ...


@dataclass(frozen=True, slots=True)
class Told:
    """The same, known without a look at Redis."""

    ids: list[str | int]
    model: str
    state: State


def record(
    status: Ended, index: int, outcome: Outcome | None, details: bool = False
) -> RecordResult:
    """One record as it ended; ``outcome`` is None for what its request took down with it."""
    id, text, error = status.ids[index], None, None
    if outcome is not None:
        text = outcome.text
        if outcome.error is not None:
            error = RecordError(outcome.error.code, outcome.error.detail)
    if text is None and error is None:
        error = _CANCELLED if status.state == "cancelled" else _LOST
    ended = RecordResult(id, text=text) if error is None and text is not None else None
    ended = ended or RecordResult(id, error=error or _LOST)
    return _detailed(ended, status, index, outcome) if details else ended


def _detailed(
    ended: RecordResult, status: Ended, index: int, outcome: Outcome | None
) -> RecordResult:
    told = (outcome and outcome.details) or _NO_DETAILS
    cancelled = isinstance(ended.error, RecordError) and ended.error.code == "cancelled"
    failed = "cancelled" if cancelled else "failed"
    return msgspec.structs.replace(
        ended,
        index=index,
        status="done" if isinstance(ended.text, str) else failed,
        model=told.model or status.model,
        timings=Timings(told.queue_ms, told.tokenize_ms, told.inference_ms),
        attempts=told.attempts,
        sentences=told.sentences,
        cached=told.cached,
        coalesced=told.coalesced,
        warnings=told.warnings,
    )


def translation(
    status: Ended, outcomes: Mapping[int, Outcome], details: bool, headers: dict[str, str]
) -> Response:
    """The answer to a synchronous request that has ended: 200 if any record has a text, else 504
    if all of them came too late, else 502."""
    result = [
        record(status, index, outcomes.get(index), details) for index in range(len(status.ids))
    ]
    if any(isinstance(ended.text, str) for ended in result):
        content = msgspec.json.encode(TranslationResult(result))
        return Response(content, 200, headers, JSON)
    members = {"result": result}
    codes = {ended.error.code for ended in result if isinstance(ended.error, RecordError)}
    if codes == {"expired"}:
        detail = "No record could be translated before the deadline. Allow more time."
        return Problem(504, "expired", detail, headers=headers, members=members).response()
    detail = "No record could be translated; each one in result says why."
    return Problem(502, "all_failed", detail, headers=headers, members=members).response()


def job(status: RequestStatus, outcomes: Mapping[int, Outcome], details: bool) -> Job:
    """A request as it stands, with the records that have ended."""
    ended = [record(status, index, outcomes[index], details) for index in sorted(outcomes)]
    return Job(
        **msgspec.structs.asdict(ticket(status)),
        failed=status.done - status.succeeded,
        model=status.model,
        from_lang=status.source,
        to_lang=status.target,
        created_at=moment(status.created_ms),
        deadline_at=moment(status.deadline_ms),
        result=ended,
    )


def ticket(status: RequestStatus) -> JobTicket:
    """A request's progress."""
    left_s = 0.0 if status.finished else status.estimated_wait_s
    return JobTicket(status.id, status.state, status.total, status.done, _seconds(left_s))


def fresh_ticket(receipt: Receipt, total: int) -> JobTicket:
    """The progress of a request that was queued just now."""
    return JobTicket(receipt.id, "queued", total, 0, _seconds(receipt.estimated_wait_s))


def accepted(ticket: JobTicket, headers: Mapping[str, str]) -> Response:
    """202: the work goes on behind the Location."""
    content = msgspec.json.encode(ticket)
    return Response(content, 202, {"Location": location(ticket.id), **headers}, JSON)


def location(request_id: str) -> str:
    """Where the state of a request can be read, whichever route it came by."""
    return f"/jobs/{request_id}"


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def moment(milliseconds: int) -> str:
    """A date in milliseconds since the epoch as RFC 3339."""
    date = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
