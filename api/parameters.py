"""What a request says outside its body: query parameters and headers, checked and typed."""

import hashlib
import re
from dataclasses import dataclass

from starlette.requests import Request

from api.openapi import Parameter
from api.problems import Problem

LONGEST_WAIT_S = 300.0
LONGEST_DEADLINE_MS = 7 * 24 * 3600 * 1000
MAX_KEY_CHARS = 255
MAX_WORKERS = 10_000

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_WHOLE = re.compile(r"[0-9]{1,15}")
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True)
class Preference:
    """The Prefer header (RFC 7240): ``wait_s`` is None without ``wait=N``."""

    wait_s: float | None = None
    respond_async: bool = False

    @property
    def at_once(self) -> bool:
        """Whether the caller wants a Location rather than to wait at all."""
        return self.wait_s == 0 or (self.respond_async and self.wait_s is None)

    @property
    def applied(self) -> dict[str, str]:
        """The Preference-Applied header of an answer that honoured it."""
        honoured = ["respond-async"] if self.respond_async else []
        if self.wait_s is not None:
            honoured.append(f"wait={self.wait_s:g}")
        return {"Preference-Applied": ", ".join(honoured)} if honoured else {}


def flag(request: Request, name: str) -> bool:
    """A query parameter that is true or false; false when absent."""
    text = _single(request, name)
    if text is None or text in ("false", "0"):
        return False
    if text in ("true", "1"):
        return True
    raise _bad_query(name, "must be true or false")


def wait_s(request: Request) -> float:
    """``?wait=N`` in seconds; 0 when absent."""
    text = _single(request, "wait")
    if text is None:
        return 0.0
    if not _SECONDS.fullmatch(text) or float(text) > LONGEST_WAIT_S:
        raise _bad_query("wait", f"must be a number of seconds from 0 to {LONGEST_WAIT_S:g}")
    return float(text)


def least_workers(request: Request) -> int:
    """``?workers=N``; 0 when absent."""
    text = _single(request, "workers")
    if text is None:
        return 0
    if not _WHOLE.fullmatch(text) or int(text) > MAX_WORKERS:
        raise _bad_query("workers", f"must be a whole number from 0 to {MAX_WORKERS}")
    return int(text)


def _single(request: Request, name: str) -> str | None:
    if not request.scope["query_string"]:
        return None
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise _bad_query(name, "may be given once")
    return values[0] if values else None


def _bad_query(name: str, rule: str) -> Problem:
    return Problem(400, "bad_query", f"The query parameter {name} {rule}.", field=f"query.{name}")


def preference(request: Request) -> Preference:
    """What of the Prefer header we understand; RFC 7240 has us ignore the rest."""
    wait, respond_async = None, False
    for token in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = token.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "respond-async":
            respond_async = True
        elif name == "wait" and wait is None and _WHOLE.fullmatch(value):
            wait = min(float(value), LONGEST_WAIT_S)
    return Preference(wait, respond_async)


def deadline_ms(request: Request, default_s: float) -> int:
    """``X-Deadline-Ms``: how long the work may take, in milliseconds from now."""
    text = request.headers.get("x-deadline-ms")
    if text is None:
        return int(default_s * 1000)
    if not _WHOLE.fullmatch(text) or not 1 <= int(text) <= LONGEST_DEADLINE_MS:
        raise Problem(
            400,
            "bad_header",
            "X-Deadline-Ms must be a whole number of milliseconds from 1 to"
            f" {LONGEST_DEADLINE_MS} (7 days), counted from now.",
            field="X-Deadline-Ms",
        )
    return int(text)


def idempotency_digest(request: Request, tenant: str) -> str:
    """A digest of tenant and Idempotency-Key, or an empty string without one."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return ""
    if len(key) > MAX_KEY_CHARS or not _VISIBLE.fullmatch(key):
        raise Problem(
            400,
            "bad_header",
            f"Idempotency-Key must be 1 to {MAX_KEY_CHARS} visible ASCII characters, a UUID for"
            " example.",
            field="Idempotency-Key",
        )
    return hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()


def traceparent(request: Request) -> str:
    """The W3C trace context of the caller; malformed ones are ignored, as the standard says."""
    text = request.headers.get("traceparent", "")
    return text if _TRACEPARENT.fullmatch(text) else ""


def sound_request_id(text: str) -> bool:
    """Whether a caller's X-Request-Id can be repeated in headers and log lines."""
    return _REQUEST_ID.fullmatch(text) is not None


def require_json(request: Request) -> None:
    """Refuses bodies that say they are something else than JSON in UTF-8."""
    media, _, rest = request.headers.get("content-type", "application/json").partition(";")
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", rest, re.IGNORECASE)
    media = media.strip().lower()
    if media != "application/json" and not (
        media.startswith("application/") and media.endswith("+json")
    ):
        raise Problem(
            415,
            "not_json",
            "The body must be JSON. Send Content-Type: application/json.",
            field="Content-Type",
        )
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise Problem(415, "not_utf8", "The body must be JSON in UTF-8.", field="Content-Type")
    refuse_compressed(request)


def refuse_compressed(request: Request) -> None:
    """Refuses bodies that say that they are compressed: nothing here unpacks them."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(
            415,
            "compressed",
            "Compressed bodies are not taken. Send it as it is.",
            field="Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )


DETAILS = Parameter(
    "details",
    "query",
    "Adds status, model, timings and warnings to each record.",
    {"type": "boolean", "default": False},
)
WAIT = Parameter(
    "wait",
    "query",
    "Seconds to wait for the job to end before answering.",
    {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_S, "default": 0},
)
JOB_ID = Parameter("id", "path", "As in the Location.", {"type": "string"})
PREFER = Parameter(
    "Prefer",
    "header",
    "`wait=N` answers 202 after N seconds at the latest, `respond-async` at once (RFC 7240).",
    {"type": "string"},
)
DEADLINE = Parameter(
    "X-Deadline-Ms",
    "header",
    "How long the work may take, in milliseconds from now: say how long you wait. What cannot end"
    " by then is refused at once under load (503 `too_late`), and records not begun by then end as"
    " `expired`. Without it, what the server is set to: 10 minutes for POST /translation, a day for"
    " jobs, unless its operator chose otherwise.",
    {"type": "integer", "minimum": 1, "maximum": LONGEST_DEADLINE_MS},
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "The same key with the same body is the same request, however often it is sent.",
    {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_CHARS,
        "pattern": f"^{_VISIBLE.pattern}$",
    },
)
REQUEST_ID = Parameter(
    "X-Request-Id",
    "header",
    "Comes back in the answer and stands in the log, if it is 1 to 128 visible ASCII characters;"
    " made up otherwise.",
    {"type": "string"},
)
TRACEPARENT = Parameter(
    "traceparent", "header", "W3C trace context, passed on with the records.", {"type": "string"}
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "header", "The id of the last event received.", {"type": "string"}
)
