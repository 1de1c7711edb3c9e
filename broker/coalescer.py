"""One pipeline per event-loop tick for all the Redis calls that an API process makes in it.

A call of its own costs redis-py about four times the CPU of a call in a pipeline, and a connection
for each request in flight would soon be thousands.
"""

import asyncio
from collections import deque
from typing import Any

from broker.connection import close_async, named

MOST_COMMANDS = 256  # per pipeline
MOST_BYTES = 1 << 20  # per pipeline, unless a single command is larger
MOST_PIPELINES = 8  # in flight, each on a connection of its own

Call = tuple[tuple[Any, ...], asyncio.Future[Any]]


class Coalescer:
    """Sends commands in pipelines and gives each caller its own answer or exception."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._waiting: deque[Call] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def execute(self, *command: Any) -> Any:
        """The server's answer. Raises what redis-py raises; the command may have run then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        while self._waiting and len(self._running) < MOST_PIPELINES:
            task = asyncio.ensure_future(self._run(self._take()))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._flush()

    def _take(self) -> list[Call]:
        taken: list[Call] = []
        size = 0
        while self._waiting and len(taken) < MOST_COMMANDS and size < MOST_BYTES:
            command, future = self._waiting.popleft()
            if future.cancelled():
                continue  # its caller gave up before it was sent
            size += sum(len(part) for part in command if isinstance(part, bytes | str))
            taken.append((command, future))
        return taken

    async def _run(self, batch: list[Call]) -> None:
        answers: list[Any]
        try:
            pipeline = self._client.pipeline(transaction=False)
            for command, _ in batch:
                pipeline.execute_command(*command)
            answers = await pipeline.execute(raise_on_error=False) if batch else []
        except Exception as error:
            answers = [named(error)] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    async def close(self) -> None:
        """Waits for what is in flight and closes the connections."""
        while self._running:
            await asyncio.wait(self._running)
        await close_async(self._client)
