"""One pipeline per event-loop tick for all the Redis calls that an API process makes in it.

A call of its own costs redis-py about four times the CPU of a call in a pipeline, and a connection
for each request in flight would soon be thousands.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from broker.connection import named
from broker.exchange import Command, Exchange, packed

MOST_COMMANDS = 256  # per pipeline
MOST_BYTES = 1 << 20  # per pipeline, unless a single command is larger
MOST_PIPELINES = 8  # in flight, each on a connection of its own


@dataclass(frozen=True, slots=True)
class Call:
    """A command that waits to be sent, and its caller."""

    command: Command
    packed: bytes
    future: asyncio.Future[Any]


class Coalescer:
    """Sends commands in pipelines and gives each caller its own answer or exception."""

    def __init__(self, client: Any, timeout_s: float) -> None:
        self._exchange = Exchange(client, timeout_s)
        self._waiting: deque[Call] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def execute(self, *command: Any) -> Any:
        """The server's answer. Raises what redis-py raises; the command may have run then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(Call(command, packed(command), future))
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
            call = self._waiting.popleft()
            if call.future.cancelled():
                continue  # its caller gave up before it was sent
            size += len(call.packed)
            taken.append(call)
        return taken

    async def _run(self, batch: list[Call]) -> None:
        if not batch:
            return
        answers: list[Any]
        try:
            answers = await self._exchange.run(
                [call.command for call in batch], [call.packed for call in batch]
            )
        except Exception as error:
            answers = [named(error)] * len(batch)
        for call, answer in zip(batch, answers, strict=True):
            if call.future.done():
                continue
            if isinstance(answer, Exception):
                call.future.set_exception(answer)
            else:
                call.future.set_result(answer)

    async def close(self) -> None:
        """Waits for what is in flight and closes the connections."""
        while self._running:
            await asyncio.wait(self._running)
        await self._exchange.close()
