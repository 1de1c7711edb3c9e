"""The Redis functions: loading the library, checking the server, and calling by short name.

``LIBRARY`` and every function carry the protocol version in their names, so that two versions can
run on one server during a rollout.
"""

import asyncio
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import redis

from broker.calls import together
from broker.coalescer import Coalescer
from broker.connection import connect, reaching_redis, translated
from broker.errors import BrokerMisconfigured
from broker.settings import BrokerSettings
from broker.wire import PROTOCOL_VERSION

LIBRARY = f"dragoman_v{PROTOCOL_VERSION}"
_REVISION = re.compile(r"^local REVISION = (\d+)$", re.MULTILINE)
OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (7, 2)
_MISSING = "Function not found"


def source() -> str:
    """The text of the Lua library."""
    return files("broker").joinpath("functions.lua").read_text(encoding="utf-8")


@cache
def revision() -> int:
    """The revision of our library; a server that holds a newer one keeps it."""
    found = _REVISION.search(source())
    if found is None:
        raise BrokerMisconfigured("functions.lua does not name its revision: reinstall Dragoman")
    return int(found[1])


def name(short: str) -> str:
    """A function's full name."""
    return f"{LIBRARY}_{short}"


def missing(error: object) -> bool:
    """Whether a call failed because the functions are not loaded."""
    return isinstance(error, redis.ResponseError) and _MISSING.lower() in str(error).lower()


def call(client: Any, short: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
    """Calls a function, loading the library first if the server has lost it.

    Raises redis exceptions other than that one unchanged.
    """
    command = ("FCALL", name(short), len(keys), *keys, *arguments)
    (answer,) = together(client, [command])
    if missing(answer):
        load(client)
        (answer,) = together(client, [command])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def call_together(
    coalescer: Coalescer,
    settings: BrokerSettings,
    short: str,
    keys: Sequence[str],
    arguments: Sequence[Any] = (),
    retry: bool = True,
) -> Any:
    """Calls a function in the pipeline of this tick. A cut connection is tried once more when the
    function may run twice, a lost library is loaded again. The time-out is the connection's, for
    the server's answer alone: a process with thousands of calls in line must not blame Redis for
    its own haste."""
    command = ("FCALL", name(short), len(keys), *keys, *arguments)
    with reaching_redis():
        try:
            return await coalescer.execute(*command)
        except redis.TimeoutError:
            raise
        except redis.ConnectionError:
            if not retry:
                raise
        except redis.ResponseError as error:
            if not missing(error):
                raise
            await asyncio.to_thread(init, settings)
        return await coalescer.execute(*command)


def primaries(client: Any) -> list[Any]:
    """A client per primary: functions are not spread over a cluster by themselves."""
    if hasattr(client, "get_primaries"):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def load(client: Any) -> None:
    """Loads the library where it is missing or older than ours.

    Raises BrokerMisconfigured when this user may not.
    """
    for primary in primaries(client):
        try:
            loaded = int(primary.fcall_ro(name("revision"), 0))
        except redis.ResponseError as error:
            if not missing(error):
                raise translated(error) from error
            loaded = 0
        if loaded >= revision():
            continue
        try:
            primary.function_load(source(), replace=True)
        except redis.exceptions.NoPermissionError as error:
            raise BrokerMisconfigured(
                f"the function library {LIBRARY} is not loaded and this Redis user may not load it:"
                " run `dragoman broker init` as a user with +function"
            ) from error


def check_server(info: dict[str, Any]) -> None:
    """Raises BrokerMisconfigured unless the server described by INFO can hold accepted work."""
    valkey = info.get("valkey_version")
    version = str(valkey or info.get("redis_version", "0"))
    oldest = OLDEST_VALKEY if valkey else OLDEST_REDIS
    if tuple(int(part) for part in version.split(".")[:2]) < oldest:
        raise BrokerMisconfigured(
            f"{'Valkey' if valkey else 'Redis'} {version} is too old: Dragoman needs Redis 7.0 or"
            " Valkey 7.2 (functions)"
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BrokerMisconfigured(
            f"maxmemory-policy is {policy}, which would evict accepted work:"
            " set `maxmemory-policy noeviction`"
        )


def init(settings: BrokerSettings) -> list[str]:
    """Checks every primary and loads the functions: ``dragoman broker init``.

    Returns a line per primary. Raises BrokerUnavailable or BrokerMisconfigured.
    """
    lines = []
    client = connect(settings)
    try:
        with reaching_redis():
            for primary in primaries(client):
                info = primary.info()
                check_server(info)
                load(primary)
                loaded = int(primary.fcall_ro(name("revision"), 0))
                version = info.get("valkey_version") or info.get("redis_version")
                lines.append(f"{LIBRARY} revision {loaded} on {version}")
    finally:
        client.close()
    return lines
