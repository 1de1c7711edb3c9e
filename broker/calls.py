"""Commands out and answers back for a thread, below redis-py's own commands, as ``exchange`` has it
for the API: packing a thousand arguments costs redis-py more than it costs to make them. A client
that is called like this belongs to one thread at a time."""

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
    connection = _connection(client)
    try:
        connection.send_packed_command([sent], check_health=False)
        return [_answer(connection) for _ in commands]
    except BaseException:
        connection.disconnect()  # or the next command would be given this one's answer
        raise


def _connection(client: Any) -> Any:
    """The client's own connection, which it keeps from the first call on: taking one from the pool
    and putting it back costs more than a call. Made anew if the server has closed it since."""
    if client.connection is None:
        client.connection = client.connection_pool.get_connection()
        return client.connection
    connection = client.connection
    connection.connect()
    try:
        sound = not connection.can_read()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        sound = False
    if not sound:
        connection.disconnect()
        connection.connect()
    return connection


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
