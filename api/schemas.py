"""The bodies of the HTTP contract as msgspec structs: they decode, encode, and make the schema in
/openapi.json, so that the three cannot disagree."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api import document_schemas
from broker.warnings import MEANING
from broker.wire import ErrorCode, State

MAX_RECORDS = 1_000
MAX_TEXT_CHARS = 10_000
MAX_TEXT_BYTES = 1024 * 1024  # UTF-8, over all records of a request
MAX_ID_CHARS = 256
MAX_LANGUAGE_CHARS = 64

RecordId = (
    Annotated[str, Meta(max_length=MAX_ID_CHARS)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
)
_ID_HELP = "The caller's own name for the record: a string or a whole number. May repeat."
_LANGUAGE = Meta(
    min_length=1, max_length=MAX_LANGUAGE_CHARS, description="A code from GET /languages."
)


class SourceRecord(msgspec.Struct, frozen=True):
    """A text to translate."""

    id: Annotated[RecordId, Meta(description=_ID_HELP)]
    text: Annotated[
        str,
        Meta(
            max_length=MAX_TEXT_CHARS,
            description="Plain text. Line breaks survive; empty and blank texts come back as they"
            " are. Controls, overrides of the writing direction and invisible signs inside a"
            " sentence are not read by the model and not in its translation.",
        ),
    ]


class Payload(msgspec.Struct, frozen=True, rename="camel"):
    """Records in one language, to be translated into another."""

    from_lang: Annotated[str, _LANGUAGE]
    records: Annotated[
        list[SourceRecord],
        Meta(
            min_length=1,
            max_length=MAX_RECORDS,
            description=f"At most {MAX_TEXT_BYTES:,} bytes of text (UTF-8) in all.",
        ),
    ]
    to_lang: Annotated[str, _LANGUAGE]


class TranslationRequest(msgspec.Struct, frozen=True):
    """The body of POST /translation and POST /jobs. Members it does not list are ignored."""

    payload: Payload


class RecordError(msgspec.Struct, frozen=True):
    """Why a record has no translation."""

    code: ErrorCode
    detail: str


class Timings(msgspec.Struct, frozen=True, rename="camel"):
    """Where the time went, in milliseconds."""

    queue_ms: float
    tokenize_ms: float
    inference_ms: float


class RecordResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record that ended: ``id`` and either ``text`` or ``error``; the rest with
    ``?details=true``."""

    id: Annotated[str | int, Meta(description="As it was sent.")]
    text: str | UnsetType = UNSET
    error: RecordError | UnsetType = UNSET
    index: Annotated[int, Meta(description="Position in the request, from 0.")] | UnsetType = UNSET
    status: State | UnsetType = UNSET
    model: str | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET
    attempts: int | UnsetType = UNSET
    sentences: int | UnsetType = UNSET
    cached: (
        Annotated[int, Meta(description="Sentences that came from the translation memory.")]
        | UnsetType
    ) = UNSET
    coalesced: (
        Annotated[
            int,
            Meta(description="Sentences that were translated once with equal ones in flight."),
        ]
        | UnsetType
    ) = UNSET
    warnings: (
        Annotated[
            list[str],
            Meta(
                description="What the service's own checks remark, one string each: a code, a"
                " colon, a sentence. Codes do not change between releases. "
                + "; ".join(f"`{code}`: {meaning}" for code, meaning in MEANING.items())
                + "."
            ),
        ]
        | UnsetType
    ) = UNSET


class TranslationResult(msgspec.Struct, frozen=True):
    """One result per record, in the order of the request."""

    result: list[RecordResult]


class JobTicket(msgspec.Struct, frozen=True, rename="camel"):
    """A request that goes on behind its Location."""

    id: str
    state: State
    total: Annotated[int, Meta(description="Records in the request.")]
    done: Annotated[int, Meta(description="Records that have ended, with a text or an error.")]
    estimated_seconds: Annotated[
        float | None, Meta(description="Until the end, at the present rate; null while unknown.")
    ]


class Job(JobTicket, frozen=True, rename="camel"):
    """A request as it stands."""

    failed: Annotated[int, Meta(description="Records that ended with an error.")]
    model: str
    from_lang: str
    to_lang: str
    created_at: Annotated[str, Meta(description="RFC 3339, UTC.")]
    deadline_at: Annotated[str, Meta(description="Records not begun by then end as expired.")]
    result: Annotated[
        list[RecordResult], Meta(description="The records that have ended, in request order.")
    ]


class JobEvent(msgspec.Struct, frozen=True):
    """A Server-Sent Event of a job: ``record`` carries a RecordResult, ``end`` a JobTicket, each as
    JSON."""

    event: str
    data: str


class Language(msgspec.Struct, frozen=True):
    """A language that may be source or target."""

    code: str
    name: Annotated[str, Meta(description="In English.")]


class Languages(msgspec.Struct, frozen=True):
    """What the model speaks, as its workers announced it."""

    model: str
    revision: str
    languages: list[Language]


class Used(msgspec.Struct, frozen=True):
    """What was handed in and queued."""

    requests: int
    records: int
    characters: int


class Limits(msgspec.Struct, frozen=True, rename="camel"):
    """What a tenant may use; null is no limit."""

    requests_per_second: float | None
    chars_per_minute: int | None
    outstanding_chars: Annotated[int, Meta(description="Queued or running at once, per shard.")]
    weight: Annotated[float, Meta(description="Share of the queue, against 1 of others.")]


class Usage(msgspec.Struct, frozen=True, rename="camel"):
    """What a tenant has used, and what it may use. Days and months are those of UTC."""

    tenant: str
    today: Used
    month: Used
    outstanding_chars: Annotated[int, Meta(description="Queued or running now.")]
    limits: Limits


class Health(msgspec.Struct, frozen=True):
    """The process is alive."""

    status: str


class Readiness(msgspec.Struct, frozen=True):
    """Redis is reachable and the broker's functions are loaded."""

    status: str
    workers: Annotated[int, Meta(description="Live workers of the model.")]


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    code: Annotated[str, Meta(description="For programs; does not change between releases.")]
    detail: Annotated[str, Meta(description="For people: what is wrong and what to do.")]
    field: Annotated[str, Meta(description="Where the mistake is.")] | UnsetType = UNSET
    line: Annotated[int, Meta(description="In the file that was sent, from 1.")] | UnsetType = UNSET
    near: (
        Annotated[list[Language], Meta(description="Languages that may have been meant.")]
        | UnsetType
    ) = UNSET
    estimated_seconds: (
        Annotated[float, Meta(description="How long refused work would have waited.")] | UnsetType
    ) = UNSET
    deadline_seconds: (
        Annotated[float, Meta(description="The deadline that it would have missed.")] | UnsetType
    ) = UNSET
    limit: (
        Annotated[str, Meta(description="The limit of the tenant that is used up.")] | UnsetType
    ) = UNSET
    result: (
        Annotated[
            list[RecordResult], Meta(description="The records' errors, when no record succeeded.")
        ]
        | UnsetType
    ) = UNSET


ALL: tuple[type[msgspec.Struct], ...] = (
    TranslationRequest,
    TranslationResult,
    JobTicket,
    Job,
    JobEvent,
    Languages,
    Usage,
    Health,
    Readiness,
    ProblemDetails,
    *document_schemas.ALL,
)


def components() -> dict[str, Any]:
    """The JSON schemas of all bodies, by name, for /openapi.json."""
    _, schemas = msgspec.json.schema_components(ALL, ref_template="#/components/schemas/{name}")
    return schemas
