"""POST /translation: takes the records, waits for them, answers in their order."""

from time import monotonic

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import examples
from api.admission import REFUSED, admit, submit
from api.joining import share
from api.openapi import Answer, Operation, problem
from api.parameters import (
    DEADLINE,
    DETAILS,
    IDEMPOTENCY_KEY,
    PREFER,
    REQUEST_ID,
    TRACEPARENT,
    Preference,
    flag,
    preference,
)
from api.problems import Problem, hung_up, problem_of
from api.results import Told, accepted, fresh_ticket, location, ticket, translation
from api.service import service_of
from api.waiting import Ending, wait
from broker.errors import BrokerError
from broker.waiter import Watch
from broker.wire import Submission

EXPIRY_S = 1.0  # what a worker gets to report records as expired before we stop to wait for them


async def translate(request: Request) -> Response:
    """Never does the work twice: whoever stops waiting gets the Location of the same request."""
    service = service_of(request)
    details, wanted = flag(request, "details"), preference(request)
    submission = await admit(request, synchronous=not wanted.at_once)
    if wanted.at_once:
        return await hand_over(request, submission, wanted)
    patience_s = _patience_s(service.settings.sync_wait_s, submission, wanted)
    with service.waiter.watching(submission.tenant, submission.id, submission) as watch:
        receipt = await submit(request, submission)
        if receipt.id == submission.id:
            return await _answer(
                request, submission, submission.id, watch, wanted, patience_s, details
            )
    if receipt.joined:
        return await _share(request, submission, receipt.id, wanted, patience_s, details)
    # An earlier request has the work: wait for that one, unless it has ended.
    with service.waiter.watching(submission.tenant, receipt.id) as watch:
        status = await service.producer.watch(submission.tenant, receipt.id)
        if status is None or status.finished:
            watch.tell(ended=True)
        return await _answer(request, submission, receipt.id, watch, wanted, patience_s, details)


def _patience_s(most_s: float, submission: Submission, wanted: Preference) -> float:
    """How long the answer may take."""
    patience_s = most_s if wanted.wait_s is None else min(most_s, wanted.wait_s)
    return min(patience_s, submission.deadline_ms / 1000 + EXPIRY_S)


async def _share(
    request: Request,
    submission: Submission,
    joined: str,
    wanted: Preference,
    patience_s: float,
    details: bool,
) -> Response:
    """Answers with the work of an identical request. If that one is dropped, the callers who shared
    it share another; one that cannot wait for it any longer gets a request of its own."""
    began_s, own = monotonic(), submission
    while True:
        left_s = max(0.0, patience_s - (monotonic() - began_s))
        ending, view = await share(request, own, joined, left_s)
        if ending is Ending.LEFT:
            return hung_up()
        if view is not None:
            return translation(*view, details, wanted.applied)
        spent_s = monotonic() - began_s
        own = msgspec.structs.replace(
            own,
            join=own.join if ending is Ending.CAME else "",
            deadline_ms=max(1, submission.deadline_ms - int(spent_s * 1000)),
        )
        with service_of(request).waiter.watching(own.tenant, own.id, own) as watch:
            receipt = await submit(request, own, refusable=False)
            if not receipt.joined:
                left_s = max(0.0, patience_s - spent_s)
                return await _answer(request, own, own.id, watch, wanted, left_s, details)
        joined = receipt.id


async def hand_over(request: Request, submission: Submission, wanted: Preference) -> Response:
    """Submits and answers 202 at once."""
    service = service_of(request)
    receipt = await submit(request, submission)
    state = fresh_ticket(receipt, len(submission.ids))
    if receipt.duplicate:
        status = await service.producer.status(submission.tenant, receipt.id)
        state = ticket(status) if status else state
    return accepted(state, wanted.applied)


async def _answer(
    request: Request,
    submission: Submission,
    request_id: str,
    watch: Watch,
    wanted: Preference,
    patience_s: float,
    details: bool,
) -> Response:
    """Waits and answers; the request is with the broker from here on."""
    service = service_of(request)
    try:
        ending = await wait(watch, watch.finished(patience_s), service.closing, request.receive)
        if ending is Ending.LEFT:
            if not submission.kept:
                await service.producer.leave(submission.tenant, request_id)
            return hung_up()
        if ending is Ending.CAME and request_id == submission.id and (end := watch.ending):
            told = Told(submission.ids, submission.model, end.state)
            return translation(told, end.outcomes, details, wanted.applied)
        if ending is not Ending.CAME:
            await service.producer.keep(submission.tenant, request_id)
        view = await service.producer.view(submission.tenant, request_id)
    except BrokerError as error:
        failure = problem_of(error)
        failure.headers["Location"] = location(request_id)
        raise failure from error
    if view is None:
        raise _lost()
    status, outcomes = view
    if status.finished:
        return translation(status, outcomes, details, wanted.applied)
    if wanted.wait_s is not None:
        return accepted(ticket(status), wanted.applied)
    raise _unfinished(ending, request_id)


def _lost() -> Problem:
    return Problem(
        503,
        "lost",
        "The broker lost this request. Send it again.",
        headers={"Retry-After": "1"},
    )


def _unfinished(ending: Ending, request_id: str) -> Problem:
    headers = {"Location": location(request_id)}
    if ending is Ending.STOPPING:
        return Problem(
            503,
            "draining",
            "This process is shutting down. The work goes on: read it at the Location.",
            headers=headers | {"Retry-After": "1"},
        )
    return Problem(
        504,
        "still_working",
        "The records were not done in time. The work goes on: read it at the Location.",
        headers=headers,
    )


OPERATIONS = (
    Operation(
        "POST",
        "/translation",
        translate,
        "Translate",
        "Translates 1 to 1,000 records and answers in their order, with their ids. Waits 300 s at"
        " most; `Prefer: wait=N` bounds the wait, `Prefer: respond-async` does away with it.",
        "Translation",
        parameters=(
            DETAILS,
            PREFER,
            DEADLINE,
            IDEMPOTENCY_KEY,
            REQUEST_ID,
            TRACEPARENT,
        ),
        body="TranslationRequest",
        examples=examples.REQUESTS,
        answers=(
            Answer(
                200,
                "At least one record has a text; the others say why they have none.",
                "TranslationResult",
                headers={"Preference-Applied": "What was honoured of Prefer."},
                example=examples.RESULT,
            ),
            Answer(
                202,
                "The work goes on behind the Location, as asked with Prefer.",
                "JobTicket",
                headers={
                    "Location": "Where the request can be read.",
                    "Preference-Applied": "What was honoured of Prefer.",
                },
                example=examples.TICKET,
            ),
            problem(400, "The body is not JSON in UTF-8, or a parameter does not fit."),
            problem(413, "The body is too large, or holds too much text."),
            problem(415, "The body is something else than JSON."),
            problem(422, "A field is missing or does not fit."),
            problem(502, "No record could be translated; `result` says why."),
            *REFUSED,
            problem(504, "Not done in time.", Location="Where the same request can be read."),
        ),
    ),
)
