"""The types that cross Redis: records in, outcomes out, and what a request says of itself."""

from typing import Literal

import msgspec

PROTOCOL_VERSION = 2

Lane = Literal["interactive", "bulk"]
LANES: tuple[Lane, ...] = ("interactive", "bulk")

# queued → running → done | failed (none succeeded); cancelled from either of the first two.
State = Literal["queued", "running", "done", "failed", "cancelled"]
TERMINAL: frozenset[State] = frozenset({"done", "failed", "cancelled"})

# What is to be done with a record that a worker has read.
Verdict = Literal["go", "expired", "cancelled", "over"]

ErrorCode = Literal["expired", "cancelled", "poison", "internal", "unsupported_language"]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One text to translate: the member of the backlog and the payload of a stream entry.

    ``request`` must stay the first field: the cancel function recognises a request's records by the
    first bytes of their JSON.
    """

    request: str  # request id, shard suffix included
    index: int  # position of the record in its request, from 0
    tenant: str
    lane: Lane
    source: str  # language codes as the caller wrote them, e.g. "en"
    target: str
    text: str
    cost: int  # characters of text, at least 1
    accepted_ms: int  # Redis TIME, milliseconds since the epoch
    deadline_ms: int  # Redis TIME, milliseconds since the epoch
    v: int = PROTOCOL_VERSION
    idempotency: str = ""  # digest of the Idempotency-Key; names its Redis key
    join: str = ""  # names the Redis key that leads identical requests to this one
    traceparent: str = ""


class Failure(msgspec.Struct, frozen=True):
    """Why a record has no text: a code for programs, a sentence for people."""

    code: ErrorCode
    detail: str


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``?details=true`` adds to a record. Times are milliseconds."""

    model: str = ""
    worker: str = ""
    attempts: int = 1
    sentences: int = 0
    queue_ms: float = 0.0  # accepted → read by a worker
    tokenize_ms: float = 0.0
    inference_ms: float = 0.0  # admitted to the engine → last sentence finished
    warnings: list[str] = []
    cached: int = 0  # of the sentences: taken from the tenant's translation memory
    coalesced: int = 0  # of the sentences: translated once with equal ones in flight


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of one record: ``text`` or ``error``, never both, never neither."""

    text: str | None = None
    error: Failure | None = None
    details: Details | None = None


class Submission(msgspec.Struct, frozen=True):
    """One request as the API accepted it; ``ids`` and ``texts`` have the same length, 1..1,000."""

    id: str  # from ``keys.new_request_id``
    tenant: str
    model: str
    lane: Lane
    source: str
    target: str
    ids: list[str | int]  # the caller's record ids, in order; may repeat
    texts: list[str]
    deadline_ms: int  # how long the work may take from now, in milliseconds (not a date)
    kept: bool = False  # a Location was or will be given: never cancelled for lack of waiters
    idempotency: str = ""  # digest of tenant and Idempotency-Key, "" without one
    fingerprint: str = ""  # digest of the body, compared when the key is used again
    join: str = ""  # digest of the work: equal ones in flight share it; never with idempotency
    traceparent: str = ""
    weight: float = 1.0  # the tenant's share of the fair queue, against 1 of others; above 0
    tenant_cap: int | None = None  # characters it may have outstanding; None: the setting's


class Receipt(msgspec.Struct, frozen=True):
    """What ``submit`` answers."""

    id: str  # the request that now holds the work: an earlier one if duplicate or joined
    duplicate: bool  # the id, or the Idempotency-Key, came before
    joined: bool  # the work is an identical request's, which waits for this caller too
    outstanding_cost: int  # characters queued or running in this shard, this request included
    estimated_wait_s: float | None  # until its last record; None while no rate has been measured


class Ending(msgspec.Struct, frozen=True):
    """How a request ended, as its news tell it where they have room."""

    state: State
    outcomes: dict[int, Outcome]  # all of them, by record index


class RequestStatus(msgspec.Struct, frozen=True):
    """A request as its hash describes it, without the results."""

    id: str
    tenant: str
    model: str
    lane: Lane
    state: State
    total: int
    done: int  # records with an outcome
    succeeded: int
    source: str
    target: str
    ids: list[str | int]
    created_ms: int
    deadline_ms: int  # a date in Redis TIME
    now_ms: int  # Redis TIME when this was read
    estimated_wait_s: float | None

    @property
    def finished(self) -> bool:
        return self.state in TERMINAL


class ModelEntry(msgspec.Struct, frozen=True):
    """What a worker announces about the model it serves; outlives the worker."""

    name: str
    revision: str
    languages: list[str]  # codes that may be source or target, sorted
    max_source_tokens: int  # longest sentence in tokens; longer ones are split by the worker


class WorkerEntry(msgspec.Struct, frozen=True):
    """A live worker as its heartbeat describes it."""

    id: str
    model: str
    device: str
    engine: str
    slots: int  # sentences the engine holds at once
    rate: float  # characters a second, EWMA over the worker's own completions
    completed: int  # records since it started
    started_ms: int
    seen_ms: int
    busy: float = 0.0  # share of the time since the heartbeat before that the engine worked
    # Of the records completed: sentences; those that the translation memory had; those that waited
    # for an equal one in flight; and records with a warning, by its code.
    sentences: int = 0
    cached: int = 0
    coalesced: int = 0
    warnings: dict[str, int] = {}


class Load(msgspec.Struct, frozen=True):
    """Outstanding work of a model, in characters, and how fast it drains."""

    outstanding_cost: int
    cost_by_lane: dict[str, int]
    drain_rate: float | None  # characters a second (EWMA), None until measured
    ready: int  # stream entries waiting or running
    backlog: int  # records behind the ready window
    workers: int
    dead_letters: int


class Delivery(msgspec.Struct, frozen=True):
    """A record as a worker holds it, under lease."""

    entry: str  # stream entry id
    stream: str  # stream key
    record: Record
    attempts: int  # 1 on first delivery
    read_ms: int  # when it was read, about Redis TIME (Record.accepted_ms is exact)

    @property
    def place(self) -> tuple[str, str]:
        """What tells deliveries apart: entry ids are only unique within a stream."""
        return self.stream, self.entry


class Completion(msgspec.Struct, frozen=True):
    """A delivery and its end; ``dead`` also writes a dead letter."""

    delivery: Delivery
    outcome: Outcome
    dead: bool = False
