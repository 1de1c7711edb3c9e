"""Every answer that is not a success: one table from exceptions to RFC 9457 problem details.

No problem ever repeats what the caller sent; it names the field and what to do about it.
"""

import logging
import math
import random
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from broker.errors import (
    BrokerError,
    BrokerMisconfigured,
    BrokerUnavailable,
    IdempotencyConflict,
    Overloaded,
    TenantOverloaded,
    TooLate,
)

log = logging.getLogger("dragoman.api")

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499
RETRY_UNAVAILABLE_S = 1
RETRY_UNMEASURED_S = (5.0, 15.0)  # overloaded before any drain rate was measured
LEAST_SPREAD_S = 2.0  # over which refused callers come back at least
LONGEST_RETRY_S = 3600


class Problem(Exception):
    """An answer in problem details; raise it or render it.

    ``code`` is for programs, ``detail`` for people; ``field`` is where the mistake is: a path into
    the body such as ``payload.records[3].text``, a header, or a query parameter.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def response(self) -> Response:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.field is not None:
            body["field"] = self.field
        content = msgspec.json.encode(body | self.members)
        return Response(content, self.status, self.headers, MEDIA_TYPE)


def hung_up() -> Response:
    """For a caller who went away: nobody's mistake. Nobody reads it; it tells the metrics."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def unknown_job() -> Problem:
    """The one answer for unknown, malformed and foreign job ids."""
    return Problem(
        404,
        "unknown_job",
        "There is no job with this id. Results are kept for a limited time after a job ends.",
    )


def retry_s(error: Overloaded) -> int:
    """When to come back: not before there is room, not after the present work is done (the service
    would run dry), and at random in between, so that those refused together come back apart."""
    if error.estimated_wait_s is None:
        first_s, last_s = RETRY_UNMEASURED_S
    else:
        first_s = error.room_s or 0.0
        last_s = max(error.estimated_wait_s, 2 * first_s, LEAST_SPREAD_S)
    return min(max(1, math.ceil(random.uniform(first_s, last_s))), LONGEST_RETRY_S)


def _refused(error: Overloaded, status: int, code: str, why: str, remedy: str) -> Problem:
    seconds = retry_s(error)
    wait_s = error.estimated_wait_s
    known = {} if wait_s is None else {"estimatedSeconds": round(wait_s, 1)}
    told = "" if wait_s is None else f" It would have waited for about {wait_s:.1f} s."
    return Problem(
        status,
        code,
        f"{why}{told} {remedy.format(seconds=seconds)}",
        headers={"Retry-After": str(seconds)},
        members=known,
    )


def _overloaded(error: Exception) -> Problem:
    assert isinstance(error, Overloaded)
    why = "More work is waiting than the service accepts; nothing of this request was queued."
    return _refused(error, 503, "overloaded", why, "Try again in {seconds} s.")


def _tenant_overloaded(error: Exception) -> Problem:
    assert isinstance(error, TenantOverloaded)
    why = "More of your own work is waiting than you may have; nothing of this request was queued."
    remedy = "Let some of it finish, or cancel some, and try again in {seconds} s."
    return _refused(error, 429, "tenant_overloaded", why, remedy)


def _too_late(error: Exception) -> Problem:
    assert isinstance(error, TooLate)
    why = (
        f"The work would not end before its deadline of {error.deadline_s:g} s; nothing of this"
        " request was queued."
    )
    remedy = "Allow more time with X-Deadline-Ms, send less at once, or try again in {seconds} s."
    problem = _refused(error, 503, "too_late", why, remedy)
    problem.members["deadlineSeconds"] = error.deadline_s
    return problem


def _unavailable(error: Exception) -> Problem:
    log.warning("broker unavailable: %s", error)
    return Problem(
        503,
        "broker_unavailable",
        "The broker does not answer. Try again; with an Idempotency-Key nothing is done twice.",
        headers={"Retry-After": str(RETRY_UNAVAILABLE_S)},
    )


def _misconfigured(error: Exception) -> Problem:
    log.error("broker misconfigured: %s", error)
    return Problem(
        503,
        "broker_misconfigured",
        "The broker cannot serve requests as it is set up. The server's log and GET /readyz name"
        " the remedy.",
        headers={"Retry-After": str(LONGEST_RETRY_S)},
    )


def _conflict(error: Exception) -> Problem:
    return Problem(
        422,
        "idempotency_conflict",
        "This Idempotency-Key was used before with another body. Use a new key for a new request.",
        field="Idempotency-Key",
    )


def _http(error: Exception) -> Problem:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    if status == 404:
        detail = "There is nothing at this path. GET /docs lists what there is."
        return Problem(404, "unknown_path", detail, headers=headers)
    if status == 405:
        allowed = ", ".join(sorted((headers or {}).get("Allow", "GET").split(", ")))
        detail = f"This path does not take that method. Allowed: {allowed}."
        return Problem(405, "wrong_method", detail, headers={"Allow": allowed})
    return Problem(status, "http_error", HTTPStatus(status).description or "", headers=headers)


def internal() -> Problem:
    """What a caller sees of a mistake of ours."""
    return Problem(
        500,
        "internal",
        "The server made a mistake; its log says more under this X-Request-Id.",
    )


TABLE: tuple[tuple[type[Exception], Callable[[Exception], Problem]], ...] = (
    (TenantOverloaded, _tenant_overloaded),
    (TooLate, _too_late),
    (Overloaded, _overloaded),
    (IdempotencyConflict, _conflict),
    (BrokerUnavailable, _unavailable),
    (BrokerMisconfigured, _misconfigured),
    (HTTPException, _http),
)
HANDLED: tuple[type[Exception], ...] = (Problem, BrokerError, HTTPException)


def problem_of(error: Exception) -> Problem:
    """The problem an exception stands for."""
    if isinstance(error, Problem):
        return error
    for kind, make in TABLE:
        if isinstance(error, kind):
            return make(error)
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return internal()


async def answer(request: Request, error: Exception) -> Response:
    """The exception handler of the app, for every class in ``HANDLED``."""
    return problem_of(error).response()
