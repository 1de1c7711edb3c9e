"""What the server answers, as the client hands it out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from dragoman.errors import DragomanError, JobCancelled, NotInTime, RecordsFailed, UnexpectedAnswer
from dragoman.errors import from_problem as error_from_problem

EXPIRED = "expired"  # the code of a record that was not begun before its deadline
FINISHED_STATES = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True)
class RecordError:
    """Why a text has no translation: a code for programs, a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True)
class Result:
    """The end of one text: ``text`` or ``error``, never both. ``index`` is its position in the
    call."""

    index: int
    text: str | None = None
    error: RecordError | None = None


@dataclass(frozen=True)
class JobStatus:
    """A job as the server last described it; ``results`` holds what has finished so far."""

    id: str
    state: str  # queued, running, done, failed (no text was translated), cancelled
    total: int
    done: int
    estimated_seconds: float | None
    results: tuple[Result, ...] = ()

    @property
    def finished(self) -> bool:
        return self.state in FINISHED_STATES


def document(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a response. Raises UnexpectedAnswer when there is none."""
    try:
        answer = response.json()
    except ValueError as error:
        raise UnexpectedAnswer(
            f"{response.request.url} answered {response.status_code} with something that is not"
            " JSON: is this Dragoman?"
        ) from error
    if not isinstance(answer, dict):
        raise UnexpectedAnswer(f"{response.request.url} answered with JSON of another shape")
    return answer


def raise_for_problem(response: httpx.Response) -> None:
    """Raises what a 4xx or 5xx answer means."""
    if response.status_code < 400:
        return
    try:
        problem = document(response)
    except UnexpectedAnswer:
        problem = {"title": f"{response.status_code} {response.reason_phrase}".strip()}
    raise error_from_problem(response.status_code, problem, retry_after_s(response))


def retry_after_s(response: httpx.Response) -> float | None:
    """The Retry-After header in seconds; a date in it counts as none."""
    try:
        return max(0.0, float(response.headers.get("retry-after", "")))
    except ValueError:
        return None


def result(record: Any) -> Result:
    """A record of an answer. Its id is the index we gave it."""
    try:
        index, error = int(record["id"]), record.get("error")
        return Result(
            index=index,
            text=record.get("text"),
            error=None if error is None else RecordError(str(error["code"]), str(error["detail"])),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise UnexpectedAnswer("a record of the answer has another shape") from problem


def job_status(answer: dict[str, Any]) -> JobStatus:
    """A job from the body of ``POST /jobs`` or ``GET /jobs/{id}``."""
    try:
        estimate = answer.get("estimatedSeconds")
        return JobStatus(
            id=str(answer["id"]),
            state=str(answer["state"]),
            total=int(answer["total"]),
            done=int(answer["done"]),
            estimated_seconds=None if estimate is None else float(estimate),
            results=tuple(result(record) for record in answer.get("result", ())),
        )
    except (KeyError, TypeError, ValueError) as problem:
        raise UnexpectedAnswer("the job in the answer has another shape") from problem


def languages(answer: dict[str, Any]) -> dict[str, str]:
    """Codes and English names from the body of ``GET /languages``."""
    try:
        return {str(one["code"]): str(one["name"]) for one in answer["languages"]}
    except (KeyError, TypeError) as problem:
        raise UnexpectedAnswer("the languages in the answer have another shape") from problem


def texts(results: Sequence[Result]) -> list[str]:
    """The translations alone. Raises NotInTime when time ran out before there was any, and
    RecordsFailed unless every text has one."""
    if results and all(one.error is not None and one.error.code == EXPIRED for one in results):
        raise NotInTime("no text was translated in time")
    if any(result.text is None for result in results):
        raise RecordsFailed(results)
    return [result.text for result in results if result.text is not None]


def outcome(status: JobStatus) -> list[Result]:
    """The results of a finished job in order. Raises JobCancelled."""
    if status.state == "cancelled":
        raise JobCancelled(f"job {status.id} was cancelled")
    if len(status.results) != status.total:
        raise DragomanError(f"job {status.id} ended with {len(status.results)} results")
    return sorted(status.results, key=lambda result: result.index)
