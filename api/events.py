"""GET /jobs/{id}/events: a job as Server-Sent Events.

Replays the records that have ended, follows the others as they end, sends ``end`` and closes. The
event id is a bitmap of the records sent so far (base64url), so that a client that comes back with
Last-Event-ID gets only the rest, from any process: records end in any order, a number would not do.
"""

import asyncio
import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.callers import caller_of
from api.openapi import Answer, Operation, problem
from api.parameters import DETAILS, JOB_ID, LAST_EVENT_ID, REQUEST_ID, flag
from api.problems import unknown_job
from api.results import record, ticket
from api.schemas import MAX_RECORDS
from api.service import Service, service_of
from api.waiting import Ending, wait
from broker.errors import BrokerError
from broker.waiter import Watch

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
RETRY_MS = 1_000  # when a client whose connection broke comes back
GATHER_S = 0.05  # news that come closer together than this make one batch
BROKER_RETRY_S = 1.0
ENDED_ID = "end"  # the id of the last event: whoever comes back with it has everything
HEARTBEAT = b": still here\n\n"


async def follow_job(request: Request) -> Response:
    """The event stream; 204, which stops an EventSource, for a client that has seen the end."""
    service, tenant = service_of(request), caller_of(request).tenant
    request_id: str = request.path_params["id"]
    details = flag(request, "details")
    if await service.producer.status(tenant, request_id) is None:
        raise unknown_job()
    last = request.headers.get("last-event-id", "")
    if last == ENDED_ID:
        return Response(status_code=204)
    if request.method == "HEAD":
        return Response(headers=HEADERS, media_type=MEDIA_TYPE)
    stream = _follow(service, tenant, request_id, seen(last), details)
    return StreamingResponse(stream, headers=HEADERS, media_type=MEDIA_TYPE)


async def _follow(
    service: Service, tenant: str, request_id: str, sent: set[int], details: bool
) -> AsyncIterator[bytes]:
    yield b"retry: %d\n\n" % RETRY_MS
    with service.waiter.watching(tenant, request_id) as watch:
        while not service.draining.rung:
            try:
                news, ended = await _news(service, tenant, request_id, sent, details)
            except BrokerError:
                yield HEARTBEAT
                await asyncio.sleep(BROKER_RETRY_S)
                continue
            if news:
                yield news
            if ended:
                return
            if not await _more(service, watch):
                yield HEARTBEAT


async def _more(service: Service, watch: Watch) -> bool:
    """Waits for news; False when there were none for as long as a stream may be silent."""
    heartbeat_s = service.settings.events_heartbeat_s
    ending = await wait(watch, watch.progressed(heartbeat_s), service.draining)
    if ending is Ending.CAME:
        await asyncio.sleep(GATHER_S)
    return ending is not Ending.TIMED_OUT


async def _news(
    service: Service, tenant: str, request_id: str, sent: set[int], details: bool
) -> tuple[bytes, bool]:
    """The events since the last call, and whether they are the last; adds to ``sent``.

    The state is read before the outcomes: if it says that the job has ended, all of them are there.
    """
    status = await service.producer.watch(tenant, request_id)
    if status is None:
        return b"", True  # its time is over
    missing = [index for index in range(status.total) if index not in sent]
    outcomes = await service.producer.outcomes(tenant, request_id, missing)
    sent.update(outcomes)
    events = []
    for index, outcome in outcomes.items():
        data = msgspec.structs.replace(record(status, index, outcome, details), index=index)
        events.append(b"event: record\ndata: " + msgspec.json.encode(data))
    if events:
        events[-1] += b"\nid: " + bitmap(sent).encode()
    if status.finished:
        state = msgspec.json.encode(ticket(status))
        events.append(b"event: end\nid: %s\ndata: %s" % (ENDED_ID.encode(), state))
    return b"".join(event + b"\n\n" for event in events), status.finished


def bitmap(indexes: set[int]) -> str:
    """A set of record indexes as base64url: 168 characters for 1,000 records."""
    bits = sum(1 << index for index in indexes)
    return urlsafe_b64encode(bits.to_bytes((bits.bit_length() + 7) // 8, "little")).decode()


def seen(event_id: str) -> set[int]:
    """The set in a Last-Event-ID; empty for one that we did not make, so that all is sent again."""
    try:
        bits = int.from_bytes(urlsafe_b64decode(event_id.encode("ascii")), "little")
    except (UnicodeEncodeError, binascii.Error):
        return set()
    if bits.bit_length() > MAX_RECORDS:
        return set()
    return {index for index in range(bits.bit_length()) if bits >> index & 1}


OPERATIONS = (
    Operation(
        "GET",
        "/jobs/{id}/events",
        follow_job,
        "Follow a job",
        "Server-Sent Events: `record` for each record that ends (`id`, `index`, `text` or `error`),"
        " those that had ended first, then `end` with the job's state. Comments keep the connection"
        " open. A client that comes back with Last-Event-ID gets only what it lacks.",
        "Jobs",
        parameters=(JOB_ID, LAST_EVENT_ID, DETAILS, REQUEST_ID),
        answers=(
            Answer(200, "The stream.", "JobEvent", media_type=MEDIA_TYPE),
            problem(400, "A parameter does not fit."),
            problem(404, "No such job."),
            problem(503, "Redis is away.", Retry_After="Seconds."),
        ),
    ),
)
