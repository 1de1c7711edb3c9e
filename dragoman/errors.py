"""What the client raises, built from the server's ``application/problem+json`` (RFC 9457)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragoman.answers import Result


class DragomanError(Exception):
    """Base of everything the client raises on purpose."""


class ServerUnreachable(DragomanError):
    """No answer: nothing listens there, or the connection broke and did not come back."""


class UnexpectedAnswer(DragomanError):
    """Something answered that is not Dragoman, or not a version this client knows."""


class ServerError(DragomanError):
    """The server refused or failed the call.

    ``status`` is the HTTP status, ``code`` the reason for programs, ``detail`` the sentence for
    people, ``problem`` the whole problem document.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        self.code = str(problem.get("code", ""))
        self.title = str(problem.get("title") or f"HTTP status {status}")
        self.detail = str(problem.get("detail") or self.title)
        super().__init__(self.detail)


class InvalidRequest(ServerError):
    """The call itself is wrong: an unknown language, too many records, a missing field."""


class NotFound(ServerError):
    """No such job: never made, someone else's, or its results have expired."""


class KeyRefused(ServerError):
    """The server asks for an API key, and got none that it knows."""


class Overloaded(ServerError):
    """The server cannot take the work now: from anybody (503), from this caller, who has too much
    waiting already (429), or because it would miss its deadline (503, ``code`` is ``too_late``).
    ``retry_after_s`` is how long it asks callers to wait."""

    def __init__(
        self, status: int, problem: Mapping[str, Any], retry_after_s: float | None
    ) -> None:
        super().__init__(status, problem)
        self.retry_after_s = retry_after_s


class NotInTime(DragomanError):
    """The translation was not finished within the time the caller gave it."""


class JobCancelled(DragomanError):
    """The job was cancelled before it was finished."""


class RecordsFailed(DragomanError):
    """Some texts have no translation. ``results`` holds all of them, in order."""

    def __init__(self, results: Sequence["Result"]) -> None:
        self.results = list(results)
        failed = [result for result in self.results if result.error is not None]
        reasons = sorted({result.error.detail for result in failed if result.error is not None})
        super().__init__(
            f"{len(failed)} of {len(self.results)} texts were not translated: {'; '.join(reasons)}"
        )


def from_problem(
    status: int, problem: Mapping[str, Any], retry_after_s: float | None
) -> ServerError:
    """The exception for a problem document."""
    if status == 404:
        return NotFound(status, problem)
    if status == 401:
        return KeyRefused(status, problem)
    if status in (429, 503):
        return Overloaded(status, problem, retry_after_s)
    if 400 <= status < 500:
        return InvalidRequest(status, problem)
    return ServerError(status, problem)
