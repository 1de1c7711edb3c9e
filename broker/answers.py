"""What Redis answers about requests, models, workers and their load, as the types of
``broker.wire``."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from broker.wire import (
    LANES,
    Failure,
    Load,
    ModelEntry,
    Outcome,
    RequestStatus,
    WorkerEntry,
)

UNREADABLE = Outcome(
    error=Failure("internal", "The result that was stored cannot be read: send the record again.")
)

log = logging.getLogger(__name__)

_decode_outcome = msgspec.json.Decoder(Outcome).decode
_decode_warnings = msgspec.json.Decoder(dict[str, int]).decode
_decode_codes = msgspec.json.Decoder(list[str]).decode
_decode_ids = msgspec.json.Decoder(list[str | int]).decode


def number(value: bytes | None) -> float | None:
    """A number that may not be known yet."""
    return float(value) if value else None


def outcome(request_id: str, index: int, value: bytes) -> Outcome:
    """What is stored as a record's outcome; if that is none, an error in its place, since the
    other records of the request are sound."""
    try:
        found = _decode_outcome(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if found is None or (found.text is None) == (found.error is None):
        log.error("the outcome of record %d of request %s cannot be read", index, request_id)
        return UNREADABLE
    return found


def view(
    tenant: str, request_id: str, answer: Any
) -> tuple[RequestStatus, dict[int, Outcome]] | None:
    """What ``watch`` answers: a request's status, whose wait is that of everything outstanding,
    and, if they were asked for, its outcomes by record index. None if its hash is damaged: then
    there is nothing to tell of it."""
    try:
        status = _status(tenant, request_id, answer)
    except (TypeError, ValueError, AttributeError, msgspec.DecodeError):
        log.error("request %s cannot be read", request_id)
        return None
    stored = answer[4]
    outcomes = {
        int(field): outcome(request_id, int(field), value)
        for field, value in zip(stored[::2], stored[1::2], strict=True)
        if field.isdigit()
    }
    return status, outcomes


def _status(tenant: str, request_id: str, answer: Any) -> RequestStatus:
    fields, now_ms, outstanding, rate = answer[:4]
    total, remaining, chars_per_s = int(fields[1]), int(fields[2]), number(rate)
    return RequestStatus(
        id=request_id,
        tenant=tenant,
        model=fields[4].decode(),
        lane=fields[5].decode(),
        state=fields[0].decode(),
        total=total,
        done=total - remaining,
        succeeded=int(fields[3]),
        source=fields[6].decode(),
        target=fields[7].decode(),
        ids=_decode_ids(fields[8]),
        created_ms=int(fields[9]),
        deadline_ms=int(fields[10]),
        now_ms=int(now_ms),
        estimated_wait_s=int(outstanding) / chars_per_s if chars_per_s else None,
    )


def model(name: str, fields: Mapping[bytes, bytes]) -> ModelEntry:
    """A model's hash."""
    return ModelEntry(
        name=name,
        revision=fields[b"revision"].decode(),
        languages=_decode_codes(fields[b"languages"]),
        max_source_tokens=int(fields[b"max_source_tokens"]),
    )


def worker(worker_id: str, fields: Mapping[bytes, bytes]) -> WorkerEntry:
    """A worker's hash."""
    return WorkerEntry(
        id=worker_id,
        model=fields[b"model"].decode(),
        device=fields[b"device"].decode(),
        engine=fields[b"engine"].decode(),
        slots=int(fields[b"slots"]),
        rate=float(fields[b"rate"]),
        completed=int(fields[b"completed"]),
        started_ms=int(fields[b"started_ms"]),
        seen_ms=int(fields[b"seen_ms"]),
        # Workers of earlier versions do not tell these.
        busy=float(fields.get(b"busy", 0)),
        sentences=int(fields.get(b"sentences", 0)),
        cached=int(fields.get(b"cached", 0)),
        coalesced=int(fields.get(b"coalesced", 0)),
        warnings=_decode_warnings(fields.get(b"warnings", b"{}")),
    )


def load(
    costs: Sequence[bytes | None], rate: bytes | None, lengths: Sequence[int], dead_letters: int
) -> Load:
    """A model's load in one shard, its workers not counted: from its costs, in all and per lane,
    its drain rate, and the lengths of its windows and then of its backlogs."""
    outstanding, *by_lane = (int(cost or 0) for cost in costs)
    return Load(
        outstanding_cost=outstanding,
        cost_by_lane=dict(zip(LANES, by_lane, strict=True)),
        drain_rate=number(rate),
        ready=sum(lengths[: len(LANES)]),
        backlog=sum(lengths[len(LANES) :]),
        workers=0,
        dead_letters=dead_letters,
    )


def total(shards: Sequence[Load], workers: int) -> Load:
    """The load of all shards, which have the same workers."""
    rates = [shard.drain_rate for shard in shards if shard.drain_rate is not None]
    return Load(
        outstanding_cost=sum(shard.outstanding_cost for shard in shards),
        cost_by_lane={lane: sum(shard.cost_by_lane[lane] for shard in shards) for lane in LANES},
        drain_rate=sum(rates) if rates else None,
        ready=sum(shard.ready for shard in shards),
        backlog=sum(shard.backlog for shard in shards),
        workers=workers,
        dead_letters=sum(shard.dead_letters for shard in shards),
    )
