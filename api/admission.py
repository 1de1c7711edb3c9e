"""From an HTTP request to the broker's Submission: everything that is checked before work is
taken, and the lane, the deadline and the Idempotency-Key it goes under."""

import hashlib

import msgspec
from starlette.requests import Request

from api import parameters
from api.access import WORK
from api.callers import caller_of
from api.decoding import parse
from api.languages import check_pair
from api.openapi import problem
from api.schemas import Payload
from api.service import service_of
from broker.wire import Lane, Receipt, Submission

INTERACTIVE_RECORDS = 16
INTERACTIVE_CHARS = 4_000

RETRY_AFTER = "Seconds, at random between when there is room and when the present work is done."
REFUSED = (  # answers of whatever queues work
    problem(
        429,
        "`tenant_overloaded`: more of the caller's own work is waiting than it may have."
        " `estimatedSeconds` is how long this request would have waited. `rate_limited`: a limit of"
        " the caller's tenant is used up; `limit` says which.",
        Retry_After=RETRY_AFTER,
    ),
    problem(
        503,
        "`overloaded`: more work is waiting than the service accepts. `too_late`: the work would"
        " end after its deadline (`deadlineSeconds`, set with X-Deadline-Ms). Nothing was queued;"
        " `estimatedSeconds` is how long this request would have waited. `broker_unavailable`:"
        " Redis is away.",
        Retry_After=RETRY_AFTER,
    ),
)


async def admit(request: Request, *, synchronous: bool) -> Submission:
    """Checks the request and describes its work. Raises Problem or a broker error."""
    service, caller = service_of(request), caller_of(request)
    settings = service.settings
    parameters.require_json(request)
    default_s = settings.sync_deadline_s if synchronous else settings.job_deadline_s
    deadline_ms = parameters.deadline_ms(request, default_s)
    digest = parameters.idempotency_digest(request, caller.tenant)
    payload = parse(await request.body()).payload
    check_pair(await service.catalogue.entry(), payload.from_lang, payload.to_lang)
    await service.callers.charge_text(caller, sum(len(record.text) for record in payload.records))
    lane_of = lane(payload, synchronous)
    shared = synchronous and not digest and service.producer.settings.memory
    join = work(payload, lane_of) if shared else ""
    return Submission(
        id=service.producer.new_request_id(digest or join),
        tenant=caller.tenant,
        model=service.model,
        lane=lane_of,
        source=payload.from_lang,
        target=payload.to_lang,
        ids=[record.id for record in payload.records],
        texts=[record.text for record in payload.records],
        deadline_ms=deadline_ms,
        kept=bool(digest) or not synchronous,
        idempotency=digest,
        fingerprint=fingerprint(payload) if digest else "",
        join=join,
        weight=caller.quota.weight,
        tenant_cap=caller.quota.outstanding_chars or None,
        traceparent=parameters.traceparent(request),
    )


def lane(payload: Payload, synchronous: bool) -> Lane:
    """Somebody waits for a little text: interactive. Anything else: bulk."""
    small = (
        len(payload.records) <= INTERACTIVE_RECORDS
        and sum(len(record.text) for record in payload.records) <= INTERACTIVE_CHARS
    )
    return "interactive" if synchronous and small else "bulk"


def fingerprint(payload: Payload) -> str:
    """The same for two bodies that mean the same, however their JSON is laid out."""
    return hashlib.sha256(msgspec.json.encode(payload)).hexdigest()


def work(payload: Payload, lane: Lane) -> str:
    """The same for two bodies that mean the same work, whatever their records are called."""
    texts = [record.text for record in payload.records]
    meant = msgspec.json.encode([lane, payload.from_lang, payload.to_lang, texts])
    return hashlib.blake2b(meant, digest_size=16).hexdigest()


async def submit(request: Request, submission: Submission, *, refusable: bool = True) -> Receipt:
    """Hands the work to the broker and counts it. What is not ``refusable`` was accepted before."""
    service = service_of(request)
    receipt = await service.producer.submit(submission, refusable=refusable)
    request.scope[WORK] = receipt.id
    if receipt.joined:
        service.metrics.joined.inc()
    elif not receipt.duplicate:
        service.metrics.accepted(submission)
    return receipt
