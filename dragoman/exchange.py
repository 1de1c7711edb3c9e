"""The client's conversations with the server, without any input or output of their own.

Each is a generator that yields what is to be done (a ``Call`` or a ``Pause``) and is sent the
response, or thrown the transport's exception. The synchronous and the asynchronous client drive
the same generators, so that retries, polling and cancelling are written once.
"""

import asyncio
import math
import random
import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx

from dragoman import answers
from dragoman.answers import (
    JobStatus,
    Result,
    document,
    job_status,
    outcome,
    raise_for_problem,
    result,
    retry_after_s,
)
from dragoman.errors import NotInTime, ServerUnreachable, UnexpectedAnswer

MAX_RECORDS = 1_000
MAX_TEXT_BYTES = 512 * 1024  # half of what the server takes
POLL_S = 20  # one long-poll; shorter than the idle limit of common proxies
ANSWER_SLACK_S = 15.0  # for the answer itself, on top of the wait that was asked for
CONNECT_S = 5.0
LONGEST_DEADLINE_S = 7 * 24 * 3600.0  # the server takes no longer one
TOO_LATE = "too_late"  # the code of work that would miss its deadline
INTERRUPTIONS = (KeyboardInterrupt, asyncio.CancelledError)


@dataclass(frozen=True)
class Call:
    """One HTTP request. ``repeatable``: may be sent again when its answer was lost."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0  # how long the server may hold it
    repeatable: bool = True


@dataclass(frozen=True)
class Pause:
    """Wait before going on."""

    seconds: float


@dataclass(frozen=True)
class Retries:
    """How often a call is repeated: ``unreachable`` times when there is no answer, ``overloaded``
    times when the server says that it cannot take it now (429, 503).

    The delay doubles from ``first_delay_s`` up to ``longest_delay_s``, with jitter. A Retry-After
    header is obeyed to the second (the server has spread callers out); one above
    ``longest_retry_after_s`` ends the retries, as does work that the server says would come too
    late for its deadline: waiting only makes that worse.
    """

    unreachable: int = 5
    overloaded: int = 20
    first_delay_s: float = 0.25
    longest_delay_s: float = 30.0
    longest_retry_after_s: float = 600.0

    def delay_s(self, attempt: int, asked_s: float | None = None) -> float:
        if asked_s is not None:
            return asked_s
        delay: float = self.first_delay_s * 2.0 ** min(attempt, 30) * random.uniform(0.5, 1.0)
        return min(delay, self.longest_delay_s)


T = TypeVar("T")
Exchange: TypeAlias = Generator[Call | Pause, httpx.Response | None, T]


def ask(call: Call, retries: Retries, deadline: float | None = None) -> Exchange[httpx.Response]:
    """Sends a call until it is answered with anything but 429 and 503, or the retries or the time
    until ``deadline`` (``time.monotonic``) are used up. Each time it is sent it says how much of
    that time is left, so that the server refuses at once what would come too late.

    A 503 with a Location is an answer: the work was accepted and goes on there. Raises
    ServerUnreachable.
    """
    lost = refused = 0
    while True:
        try:
            response = yield call if deadline is None else _timed(call, deadline)
        except httpx.UnsupportedProtocol as error:
            raise ServerUnreachable("a server's URL begins with http:// or https://") from error
        except httpx.TransportError as error:
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            delay_s = retries.delay_s(lost)
            lost += 1
            if (
                lost > retries.unreachable
                or (sent and not call.repeatable)
                or _late(deadline, delay_s)
            ):
                raise ServerUnreachable(unreachable(error)) from error
        else:
            if response is None:
                raise RuntimeError("a call was answered with nothing")
            if not _refused(response):
                return response
            asked_s = retry_after_s(response)
            delay_s = retries.delay_s(refused, asked_s)
            refused += 1
            hopeless = asked_s is not None and asked_s > retries.longest_retry_after_s
            if hopeless or refused > retries.overloaded or _late(deadline, delay_s):
                return response
        yield Pause(delay_s)


def _timed(call: Call, deadline: float) -> Call:
    deadline_ms = max(1, int(_left_s(deadline) * 1000))
    return replace(call, headers=call.headers | {"X-Deadline-Ms": str(deadline_ms)})


def _left_s(deadline: float) -> float:
    """What may be asked for at most, also where the caller would wait for ever."""
    return min(LONGEST_DEADLINE_S, max(0.0, deadline - time.monotonic()))


def _refused(response: httpx.Response) -> bool:
    """Whether the same call may be taken later."""
    if response.status_code not in (429, 503) or "location" in response.headers:
        return False
    try:
        return document(response).get("code") != TOO_LATE
    except UnexpectedAnswer:  # a proxy's, not ours
        return True


def _late(deadline: float | None, delay_s: float) -> bool:
    return deadline is not None and time.monotonic() + delay_s >= deadline


def unreachable(error: httpx.TransportError) -> str:
    url = error.request.url.copy_with(raw_path=b"/")
    return f"no answer from {url}: {str(error) or type(error).__name__}"


def payload(texts: Sequence[str], source: str, target: str) -> dict[str, Any]:
    """The body of ``POST /translation`` and ``POST /jobs``; a record's id is its index."""
    records = [{"id": str(index), "text": text} for index, text in enumerate(texts)]
    return {"payload": {"fromLang": source, "toLang": target, "records": records}}


def batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive runs of texts that fit in one request. A text too long for any stands alone, and
    the server says so."""
    start, size = 0, 0
    for end, text in enumerate(texts):
        length = len(text.encode("utf-8", "surrogatepass"))
        if end > start and (end - start == MAX_RECORDS or size + length > MAX_TEXT_BYTES):
            yield texts[start:end]
            start, size = end, 0
        size += length
    if start < len(texts):
        yield texts[start:]


def translate(
    texts: Sequence[str], source: str, target: str, timeout_s: float, retries: Retries
) -> Exchange[list[Result]]:
    """Results of all texts, in order. Work that nobody waits for any more is cancelled."""
    deadline = time.monotonic() + timeout_s
    parts = list(batches(texts))
    if not parts:
        return []
    if len(parts) == 1:
        return (yield from _translate_one(parts[0], source, target, deadline, retries))
    return (yield from _translate_parts(parts, source, target, deadline, retries))


def _translate_parts(
    parts: list[Sequence[str]], source: str, target: str, deadline: float, retries: Retries
) -> Exchange[list[Result]]:
    jobs: list[str] = []
    try:
        for part in parts:
            status = yield from submit(part, source, target, None, retries, deadline)
            jobs.append(status.id)
        results: list[Result] = []
        for job in list(jobs):
            status = yield from follow(job, deadline, retries)
            jobs.remove(job)
            first = len(results)
            results += [Result(first + one.index, one.text, one.error) for one in outcome(status)]
    except (Exception, *INTERRUPTIONS):
        for job in jobs:
            yield from _drop(job)
        raise
    return results


def _translate_one(
    texts: Sequence[str], source: str, target: str, deadline: float, retries: Retries
) -> Exchange[list[Result]]:
    wait_s = min(POLL_S, math.ceil(_left_s(deadline)))
    call = Call(
        "POST",
        "/translation",
        body=payload(texts, source, target),
        headers={"Prefer": f"wait={wait_s}"},
        wait_s=wait_s,
    )
    response = yield from ask(call, retries, deadline)
    job = response.headers.get("location", "").rpartition("/")[2]
    if response.status_code in (202, 503, 504) and job:
        try:
            return outcome((yield from follow(job, deadline, retries)))
        except (NotInTime, *INTERRUPTIONS):
            yield from _drop(job)
            raise
    if response.status_code in (200, 502, 504):
        answer = document(response)
        if "result" in answer:
            return sorted(map(result, answer["result"]), key=lambda one: one.index)
    raise_for_problem(response)
    raise UnexpectedAnswer(f"the server answered with status {response.status_code}")


def _drop(job: str) -> Exchange[None]:
    """Cancels on the way out: once, and the reason for leaving stays the one that is raised."""
    with suppress(httpx.TransportError):
        yield Call("DELETE", job_path(job))


def submit(
    texts: Sequence[str],
    source: str,
    target: str,
    key: str | None,
    retries: Retries,
    deadline: float | None = None,
) -> Exchange[JobStatus]:
    """Makes a job. The key makes it safe to send again: the same key is the same job. Without a
    ``deadline`` (``time.monotonic``) it may take as long as the server allows.

    Without a key of the caller's nobody else can know the job, so one that was interrupted on the
    way is found by our key and cancelled.
    """
    call = Call(
        "POST",
        "/jobs",
        body=payload(texts, source, target),
        headers={"Idempotency-Key": key or secrets.token_hex(16)},
    )
    try:
        response = yield from ask(call, retries, deadline)
    except INTERRUPTIONS:
        if key is None:
            with suppress(httpx.TransportError, UnexpectedAnswer):
                found = yield call
                if found is not None and found.status_code == 202:
                    yield from _drop(job_status(document(found)).id)
        raise
    raise_for_problem(response)
    return job_status(document(response))


def status(job: str, wait_s: int, retries: Retries) -> Exchange[JobStatus]:
    """A job as it is now, or as soon as it has ended within ``wait_s`` seconds."""
    params = {"wait": str(wait_s)} if wait_s else {}
    call = Call("GET", job_path(job), params=params, wait_s=wait_s)
    response = yield from ask(call, retries)
    raise_for_problem(response)
    return job_status(document(response))


def follow(job: str, deadline: float | None, retries: Retries) -> Exchange[JobStatus]:
    """A job once it has ended. Raises NotInTime at the deadline (``time.monotonic``)."""
    while True:
        left_s = POLL_S if deadline is None else _left_s(deadline)
        current = yield from status(job, min(POLL_S, math.ceil(left_s)), retries)
        if current.finished:
            return current
        if deadline is not None and time.monotonic() >= deadline:
            raise NotInTime(f"job {job} is not finished: {current.done} of {current.total}")


def cancel(job: str, retries: Retries) -> Exchange[None]:
    """Cancels a job; one that has ended already stays as it is."""
    response = yield from ask(Call("DELETE", job_path(job)), retries)
    raise_for_problem(response)


def languages(retries: Retries) -> Exchange[dict[str, str]]:
    """What the server translates, as codes and English names."""
    response = yield from ask(Call("GET", "/languages"), retries)
    raise_for_problem(response)
    return answers.languages(document(response))


def job_path(job: str) -> str:
    return f"/jobs/{quote(job, safe='')}"
