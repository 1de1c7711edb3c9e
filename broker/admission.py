"""A submission on its way to Redis: what the ``submit`` function is told, and what it answers."""

from datetime import datetime
from typing import Any

import msgspec

from broker.errors import IdempotencyConflict, Overloaded, TenantOverloaded, TooLate
from broker.keys import Keys
from broker.settings import BrokerSettings
from broker.wire import PROTOCOL_VERSION, Lane, Receipt, Submission

MONTH, DAY = "%Y-%m", "%d"  # of usage, in UTC

_NO_MARK = "-"  # in place of the request that submit must not join: nothing is to be joined

_encode = msgspec.json.Encoder().encode


class _RecordTail(msgspec.Struct, omit_defaults=True):
    """What ``submit`` puts behind the request, times and index that the server itself writes."""

    tenant: str
    lane: Lane
    source: str
    target: str
    cost: int
    text: str
    v: int
    idempotency: str = ""
    join: str = ""
    traceparent: str = ""


def names(submission: Submission, keys: Keys, now: datetime) -> list[str]:
    """The keys that the function touches; ``now`` (UTC) says whose month it is."""
    touched = [
        keys.request(submission.tenant, submission.id),
        keys.load(),
        keys.backlog(submission.model, submission.lane),
        keys.queue(submission.model, submission.lane),
        keys.usage(submission.tenant, now.strftime(MONTH)),
    ]
    if submission.idempotency:
        touched.append(keys.idempotency(submission.tenant, submission.idempotency))
    elif submission.join:
        touched.append(keys.inflight(submission.tenant, submission.join))
    return touched


def arguments(
    submission: Submission,
    settings: BrokerSettings,
    process: str,
    over: str,
    refusable: bool,
    now: datetime,
) -> list[Any]:
    """The function's arguments. ``over`` is a request that must not be joined; what is not
    ``refusable`` was accepted before, and no cap holds."""
    caps: tuple[int | str, int | str] = ("", "")
    if refusable:
        cap = submission.tenant_cap
        caps = settings.max_outstanding_chars, settings.max_tenant_chars if cap is None else cap
    told: list[Any] = [
        submission.id,
        submission.tenant,
        submission.model,
        submission.lane,
        submission.source,
        submission.target,
        _encode(submission.ids),
        submission.deadline_ms,
        settings.result_ttl_s * 1000,
        *caps,
        int(submission.kept),
        process,
        submission.idempotency,
        submission.fingerprint,
        submission.weight,
        over if submission.join else _NO_MARK,
        now.strftime(DAY),
        " ".join([str(_cost(text)) for text in submission.texts]),
    ]
    for text in submission.texts:
        tail = _RecordTail(
            tenant=submission.tenant,
            lane=submission.lane,
            source=submission.source,
            target=submission.target,
            cost=_cost(text),
            text=text,
            v=PROTOCOL_VERSION,
            idempotency=submission.idempotency,
            join=submission.join,
            traceparent=submission.traceparent,
        )
        told.append(_encode(tail)[1:])
    return told


def _cost(text: str) -> int:
    return max(1, len(text))


def receipt(submission: Submission, answer: Any) -> Receipt:
    """The function's answer. Raises Overloaded and its kinds, and IdempotencyConflict."""
    verdict, request_id, outstanding = answer[0].decode(), answer[1].decode(), int(answer[2])
    wait_s, room_s = (float(value) if value else None for value in answer[3:5])
    if verdict == "overloaded":
        raise Overloaded(wait_s, room_s)
    if verdict == "tenant_overloaded":
        raise TenantOverloaded(wait_s, room_s)
    if verdict == "too_late":
        raise TooLate(wait_s or 0.0, room_s or 0.0, submission.deadline_ms / 1000)
    if verdict == "conflict":
        raise IdempotencyConflict("this Idempotency-Key came with another body before")
    joined = verdict == "joined"
    return Receipt(request_id, verdict == "duplicate", joined, outstanding, wait_s)
