"""The asynchronous client: ``AsyncClient`` and the ``AsyncJob`` it hands out."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, overload

import httpx

from dragoman import exchange
from dragoman.answers import JobStatus, Result, outcome, raise_for_problem, texts
from dragoman.client import DEFAULT_TIMEOUT_S, DEFAULT_URL, Texts, timeouts, with_key
from dragoman.errors import ServerUnreachable
from dragoman.events import EventReader
from dragoman.exchange import Call, Exchange, Pause, Retries

T = TypeVar("T")


class AsyncClient:
    """``dragoman.Client`` for asyncio: the same calls, awaited. Tasks may share it.

    A cancelled ``translate`` cancels its work on the server.
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
        self._http = httpx.AsyncClient(
            base_url=url, headers=with_key(headers, key), timeout=timeouts(0)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    @overload
    async def translate(
        self, text: str, source: str, target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> str: ...

    @overload
    async def translate(
        self, text: Texts, source: str, target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[str]: ...

    async def translate(
        self,
        text: str | Texts,
        source: str,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> str | list[str]:
        """See ``Client.translate``."""
        results = await self.results(
            [text] if isinstance(text, str) else text, source, target, timeout_s=timeout_s
        )
        translated = texts(results)
        return translated[0] if isinstance(text, str) else translated

    async def results(
        self,
        text: Sequence[str],
        source: str,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> list[Result]:
        """See ``Client.results``."""
        return await self._run(exchange.translate(text, source, target, timeout_s, self.retries))

    async def submit(
        self,
        text: Sequence[str],
        source: str,
        target: str,
        *,
        idempotency_key: str | None = None,
        deadline_s: float | None = None,
    ) -> "AsyncJob":
        """See ``Client.submit``."""
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        conversation = exchange.submit(
            text, source, target, idempotency_key, self.retries, deadline
        )
        status = await self._run(conversation)
        return AsyncJob(self, status)

    async def job(self, job: str) -> "AsyncJob":
        """The job of that id. Raises NotFound."""
        return AsyncJob(self, await self._run(exchange.status(job, 0, self.retries)))

    async def languages(self) -> dict[str, str]:
        """The languages the server translates between: codes and English names."""
        return await self._run(exchange.languages(self.retries))

    async def _run(self, conversation: Exchange[T]) -> T:
        try:
            step = next(conversation)
            while True:
                try:
                    answer = await self._carry_out(step)
                except (
                    BaseException
                ) as error:  # cancellation too: the conversation cancels its work
                    step = conversation.throw(error)
                else:
                    step = conversation.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    async def _carry_out(self, step: Call | Pause) -> httpx.Response | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        return await self._http.request(
            step.method,
            step.path,
            json=step.body,
            headers=step.headers,
            params=step.params,
            timeout=timeouts(step.wait_s),
        )

    async def _events(self, job: str) -> AsyncIterator[Result]:
        reader, attempt = EventReader(), 0
        while not reader.ended:
            reader.restart()
            try:
                async with self._http.stream("GET", exchange.job_path(job) + "/events") as response:
                    if response.status_code >= 400:
                        await response.aread()
                        raise_for_problem(response)
                    async for line in response.aiter_lines():
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
                await asyncio.sleep(self.retries.delay_s(attempt))
                attempt += 1


class AsyncJob:
    """``dragoman.client.Job`` for asyncio."""

    def __init__(self, client: AsyncClient, status: JobStatus) -> None:
        self.status = status
        self._client = client

    @property
    def id(self) -> str:
        return self.status.id

    async def refresh(self, wait_s: int = 0) -> JobStatus:
        """See ``Job.refresh``."""
        conversation = exchange.status(self.id, wait_s, self._client.retries)
        self.status = await self._client._run(conversation)
        return self.status

    async def wait(self, timeout_s: float | None = None) -> list[Result]:
        """See ``Job.wait``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        conversation = exchange.follow(self.id, deadline, self._client.retries)
        self.status = await self._client._run(conversation)
        return outcome(self.status)

    async def cancel(self) -> None:
        """See ``Job.cancel``."""
        await self._client._run(exchange.cancel(self.id, self._client.retries))

    def events(self) -> AsyncIterator[Result]:
        """See ``Job.events``."""
        return self._client._events(self.id)
