"""The synchronous client: ``Client`` and the ``Job`` it hands out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeAlias, TypeVar, overload

import httpx

from dragoman import exchange
from dragoman.answers import JobStatus, Result, outcome, raise_for_problem, texts
from dragoman.errors import ServerUnreachable
from dragoman.events import EventReader
from dragoman.exchange import ANSWER_SLACK_S, CONNECT_S, Call, Exchange, Pause, Retries

DEFAULT_URL = "http://127.0.0.1:9527"
DEFAULT_TIMEOUT_S = 300.0

T = TypeVar("T")
Texts: TypeAlias = list[str] | tuple[str, ...]


def timeouts(wait_s: float) -> httpx.Timeout:
    """The transport's patience with a call that the server may hold for ``wait_s``."""
    return httpx.Timeout(wait_s + ANSWER_SLACK_S, connect=CONNECT_S)


def with_key(headers: Mapping[str, str] | None, key: str) -> dict[str, str]:
    """The headers of every call."""
    sent = dict(headers or {})
    if key:
        sent["Authorization"] = f"Bearer {key}"
    return sent


class Client:
    """A connection to a Dragoman server; connections are kept and reused. Threads may share it.

    ``key`` is the API key, where the server asks for one. ``headers`` go with every call.
    ``retries`` says how often a call is repeated when the server is overloaded or cannot be
    reached.

    >>> with Client("http://127.0.0.1:9527") as client:
    ...     client.translate("Where is the station?", source="en", target="ja")
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
        retries: Retries | None = None,
    ) -> None:
        self.retries = retries or Retries()
        self._http = httpx.Client(base_url=url, headers=with_key(headers, key), timeout=timeouts(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    @overload
    def translate(
        self, text: str, source: str, target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> str: ...

    @overload
    def translate(
        self, text: Texts, source: str, target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[str]: ...

    def translate(
        self,
        text: str | Texts,
        source: str,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> str | list[str]:
        """Translates one text, or any number of texts in order; languages are codes like ``en``.

        ``timeout_s`` is how long you wait, and the server is told: under load it refuses at once
        what it could not do by then (Overloaded) instead of letting you wait in vain.

        Raises RecordsFailed when a text has no translation, NotInTime when nothing was translated
        after ``timeout_s`` seconds (the work is then cancelled), and the other errors of
        ``dragoman.errors``.
        """
        results = self.results(
            [text] if isinstance(text, str) else text, source, target, timeout_s=timeout_s
        )
        translated = texts(results)
        return translated[0] if isinstance(text, str) else translated

    def results(
        self,
        text: Sequence[str],
        source: str,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[Result]:
        """Like ``translate``, with a text or an error for each, so that one bad text does not
        hide the others."""
        return self._run(exchange.translate(text, source, target, timeout_s, self.retries))

    def submit(
        self,
        text: Sequence[str],
        source: str,
        target: str,
        *,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> "Job":
        """Hands texts in and returns at once; at most 1,000 texts and 1 MiB in one job.

        The same ``idempotency_key`` is the same job. Without one, a fresh key is used, so that a
        call repeated by the client itself never makes a second job.

        ``deadline_s`` is how long the job may take, in seconds: a server that sees that it cannot
        be done by then refuses it at once (Overloaded), and texts that were not begun by then end
        with the error ``expired``. Without it the server's default holds, a day.
        """
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        conversation = exchange.submit(
            text, source, target, idempotency_key, self.retries, deadline
        )
        status = self._run(conversation)
        return Job(self, status)

    def job(self, job: str) -> "Job":
        """The job of that id. Raises NotFound."""
        return Job(self, self._run(exchange.status(job, 0, self.retries)))

    def languages(self) -> dict[str, str]:
        """The languages the server translates between: codes and English names."""
        return self._run(exchange.languages(self.retries))

    def _run(self, conversation: Exchange[T]) -> T:
        """Carries out what the conversation asks for until it ends."""
        try:
            step = next(conversation)
            while True:
                try:
                    answer = self._carry_out(step)
                except (
                    BaseException
                ) as error:  # an interrupt too: the conversation cancels its work
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    def _carry_out(self, step: Call | Pause) -> httpx.Response | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        return self._http.request(
            step.method,
            step.path,
            json=step.body,
            headers=step.headers,
            params=step.params,
            timeout=timeouts(step.wait_s),
        )

    def _events(self, job: str) -> Iterator[Result]:
        reader, attempt = EventReader(), 0
        while not reader.ended:
            reader.restart()
            try:
                with self._http.stream("GET", exchange.job_path(job) + "/events") as response:
                    if response.status_code >= 400:
                        response.read()
                        raise_for_problem(response)
                    for line in response.iter_lines():
                        record = reader.feed(line)
                        if record is not None:
                            attempt = 0
                            yield record
            except httpx.TransportError as error:
                if attempt >= self.retries.unreachable:
                    raise ServerUnreachable(exchange.unreachable(error)) from error
            if not reader.ended:
                if attempt >= self.retries.unreachable:
                    raise ServerUnreachable(f"the events of job {job} end before the job does")
                time.sleep(self.retries.delay_s(attempt))
                attempt += 1


class Job:
    """Work the server has accepted. ``status`` is what it last said."""

    def __init__(self, client: Client, status: JobStatus) -> None:
        self.status = status
        self._client = client

    @property
    def id(self) -> str:
        return self.status.id

    def refresh(self, wait_s: int = 0) -> JobStatus:
        """Asks again; with ``wait_s`` the answer comes when the job ends, or after that time."""
        self.status = self._client._run(exchange.status(self.id, wait_s, self._client.retries))
        return self.status

    def wait(self, timeout_s: float | None = None) -> list[Result]:
        """The results in order, once the job has ended.

        Raises NotInTime after ``timeout_s`` seconds (the job goes on), JobCancelled when it was
        cancelled.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.status = self._client._run(exchange.follow(self.id, deadline, self._client.retries))
        return outcome(self.status)

    def cancel(self) -> None:
        """Cancels it; what has ended already stays as it is."""
        self._client._run(exchange.cancel(self.id, self._client.retries))

    def events(self) -> Iterator[Result]:
        """Each result as soon as it is there, first those that are; ends with the job."""
        return self._client._events(self.id)
