"""Commands out and answers back for a thread, below redis-py's own commands, as ``exchange`` has it
for the API: packing a thousand arguments costs redis-py more than it costs to make them."""

from collections.abc import Sequence
from typing import Any

import redis

from broker.exchange import Command, packed


def together(client: Any, commands: Sequence[Command]) -> list[Any]:
    """The answers to commands that go out together on a client of ``connect``, as the server gives
    them, errors of single ones among them. Raises what redis-py raises when the connection fails:
    any of them may have run. A cluster's client finds out who has the keys, sends them one by one,
    and gives their answers redis-py's own forms."""
    if not hasattr(client, "connection_pool"):
        return [_routed(client, command) for command in commands]
    sent = b"".join(map(packed, commands))
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([sent])
        return [_answer(connection) for _ in commands]
    except BaseException:
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _routed(client: Any, command: Command) -> Any:
    try:
        return client.execute_command(*command)
    except redis.ResponseError as error:
        return error
