"""Commands out and answers back, many at a time on one connection, below redis-py's pipelines.

Those cost more processor time than the rest of a small request: a task and a time-out for each
write, a time-out for each answer, four coroutines to take a connection from the pool and to put it
back. Here redis-py opens, checks and closes the connections and parses the answers; the connections
stay with us in between, and a time-out is one timer that is pushed on with every few answers.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import redis

from broker.connection import close_async

ANSWERS = 8  # so many may take the time-out; then the rest begins anew

Command = tuple[Any, ...]


def packed(command: Command) -> bytes:
    """A command as it is sent. Raises TypeError for what Redis has no form for."""
    found: bytes = hiredis.pack_command(command)
    return found


class Exchange:
    """The connections of one client of ``connect_async``, as many as there are calls at a time."""

    def __init__(self, client: Any, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._idle: list[Any] = []

    async def run(self, commands: Sequence[Command], sent: Sequence[bytes]) -> list[Any]:
        """The answers to ``commands``, errors of single ones among them; ``sent`` is each one
        packed. Raises what redis-py raises when the connection fails: any of them may have run."""
        if not hasattr(self._client, "connection_pool"):  # a cluster's client spreads them itself
            pipeline = self._client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))
        pool = self._client.connection_pool
        connection = self._idle.pop() if self._idle else pool.get_available_connection()
        connection.socket_timeout = None  # ours instead
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                await pool.ensure_connection(connection)
                await connection.send_packed_command(sent, check_health=False)
                answers = []
                for at, command in enumerate(commands):
                    if at % ANSWERS == ANSWERS - 1:
                        limit.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
                    answers.append(await self._answer(connection, command))
        except TimeoutError:
            await self._drop(connection)
            raise redis.TimeoutError(f"no answer within {self._timeout_s:g} s") from None
        except BaseException:
            await self._drop(connection)
            raise
        self._idle.append(connection)
        return answers

    async def _answer(self, connection: Any, command: Command) -> Any:
        try:
            answer = await connection.read_response()
        except redis.ResponseError as error:
            return error
        convert = self._client.response_callbacks.get(command[0])
        return convert(answer) if convert else answer

    async def _drop(self, connection: Any) -> None:
        await connection.disconnect(nowait=True)
        await self._client.connection_pool.release(connection)

    async def close(self) -> None:
        """Closes the connections; nothing may be running."""
        for connection in self._idle:
            await self._drop(connection)
        self._idle.clear()
        await close_async(self._client)
