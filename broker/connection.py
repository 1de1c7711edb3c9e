"""Connections to Redis: URLs of every supported kind, time-outs, and the edge where redis
exceptions become the broker's own."""

import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.sentinel
import redis.cluster
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from broker.errors import BrokerError, BrokerMisconfigured, BrokerUnavailable
from broker.settings import BrokerSettings

# Answers of a server that is there but cannot serve just now. redis-py makes classes of some and
# takes their first word away.
_PASSING_CLASSES = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
_PASSING_WORDS = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "READONLY",
                  "OOM", "MISCONF", "BUSY ")  # fmt: skip


_TLS_SCHEMES = ("rediss://", "redis+sentinel+tls://", "redis+cluster+tls://")


@dataclass(frozen=True)
class Endpoint:
    """A parsed Redis URL. ``kind`` is ``url``, ``sentinel`` or ``cluster``."""

    kind: str
    url: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def parse_url(url: str) -> Endpoint:
    """Raises BrokerMisconfigured, without the password, when no server can be meant by ``url``."""
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        return Endpoint("url", url)
    kind, _, tls = scheme.removeprefix("redis+").partition("+")
    if kind not in ("sentinel", "cluster") or not scheme.startswith("redis+"):
        raise BrokerMisconfigured(
            f"--redis-url begins with {scheme!r}; use redis://, rediss://, unix://,"
            " redis+sentinel://host:port,host:port/service or redis+cluster://host:port,host:port"
            " (redis+sentinel+tls://, redis+cluster+tls:// with TLS)"
        )
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    default_port = 26_379 if kind == "sentinel" else 6_379
    try:
        addresses = tuple(
            (host.rpartition(":")[0] or host, int(host.rpartition(":")[2] or default_port))
            if ":" in host
            else (host, default_port)
            for host in hosts.split(",")
            if host
        )
    except ValueError:
        raise BrokerMisconfigured("--redis-url names a port that is not a number") from None
    path = [piece for piece in parts.path.split("/") if piece]
    if not addresses or (kind == "sentinel" and not path):
        raise BrokerMisconfigured("--redis-url names no host or, for Sentinel, no service")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    if tls:
        options["ssl"] = True
    if kind == "sentinel" and len(path) > 1:
        options["db"] = int(path[1])
    return Endpoint(kind, url, addresses, path[0] if path else "", options)


def _options(settings: BrokerSettings, timeout_s: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout_s if timeout_s is None else timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "protocol": 2,  # one shape of answers from every server version
    }
    if not settings.redis_url.startswith("unix://"):
        options["socket_keepalive"] = True
    if settings.redis_user:
        options["username"] = settings.redis_user
    if settings.redis_password_file:
        try:
            text = Path(settings.redis_password_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise BrokerMisconfigured(
                f"--redis-password-file {settings.redis_password_file} cannot be read: {reason}"
            ) from None
        options["password"] = text.partition("\n")[0].strip()
    return options | _tls(settings)


def _tls(settings: BrokerSettings) -> dict[str, str]:
    """The files of TLS, by redis-py's names for them. Raises BrokerMisconfigured rather than go on
    without what was asked for."""
    files = {
        "ssl_ca_certs": ("--redis-ca-file", settings.redis_ca_file),
        "ssl_certfile": ("--redis-cert-file", settings.redis_cert_file),
        "ssl_keyfile": ("--redis-key-file", settings.redis_key_file),
    }
    given = {name: path for name, (_, path) in files.items() if path}
    if not given:
        return {}
    if not settings.redis_url.startswith(_TLS_SCHEMES):
        raise BrokerMisconfigured(
            f"{files[next(iter(given))][0]} is for TLS, which --redis-url does not ask for: use"
            " rediss://, redis+sentinel+tls:// or redis+cluster+tls://"
        )
    for flag, path in files.values():
        if path and not os.access(path, os.R_OK):
            raise BrokerMisconfigured(f"{flag} {path} cannot be read")
    return given


def connect(settings: BrokerSettings, timeout_s: float | None = None) -> Any:
    """A synchronous client that never retries by itself: who retries must know that it is safe.

    ``timeout_s`` overrides the setting; a blocking read needs one longer than its BLOCK.
    """
    endpoint, options = parse_url(settings.redis_url), _options(settings, timeout_s)
    options["retry"] = Retry(NoBackoff(), 0)
    if endpoint.kind == "url":
        return redis.Redis.from_url(endpoint.url, **options)
    if endpoint.kind == "sentinel":
        sentinel = redis.sentinel.Sentinel(endpoint.hosts, socket_timeout=settings.redis_timeout_s)
        return sentinel.master_for(endpoint.service, **(options | endpoint.options))
    nodes = [redis.cluster.ClusterNode(host, port) for host, port in endpoint.hosts]
    with reaching_redis():
        return redis.cluster.RedisCluster(startup_nodes=nodes, **(options | endpoint.options))


def connect_async(settings: BrokerSettings, timeout_s: float | None = None) -> Any:
    """The asynchronous twin of ``connect``."""
    endpoint, options = parse_url(settings.redis_url), _options(settings, timeout_s)
    options["retry"] = AsyncRetry(NoBackoff(), 0)
    if endpoint.kind == "url":
        return redis.asyncio.Redis.from_url(endpoint.url, **options)
    if endpoint.kind == "sentinel":
        sentinel = redis.asyncio.sentinel.Sentinel(
            endpoint.hosts, socket_timeout=settings.redis_timeout_s
        )
        return sentinel.master_for(endpoint.service, **(options | endpoint.options))
    nodes = [redis.asyncio.cluster.ClusterNode(host, port) for host, port in endpoint.hosts]
    return redis.asyncio.cluster.RedisCluster(startup_nodes=nodes, **(options | endpoint.options))


async def close_async(client: Any) -> None:
    """Closes a client of ``connect_async``, with the clients that ask the Sentinels for it."""
    await client.aclose()
    pool = getattr(client, "connection_pool", None)
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        await sentinel.aclose()


def translated(error: BaseException) -> BrokerError:
    """The broker's error for what redis-py raised."""
    if (untrusted := _untrusted(error)) is not None:
        return BrokerMisconfigured(untrusted)
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return BrokerMisconfigured(f"Redis refuses this user: {error}")
    if isinstance(error, _PASSING_CLASSES) or str(error).startswith(_PASSING_WORDS):
        return BrokerUnavailable(f"Redis cannot serve just now: {error}")
    if isinstance(error, redis.ResponseError):
        if str(error).startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            return BrokerMisconfigured(f"Redis refuses this user: {error}")
        return BrokerMisconfigured(f"Redis answered with an error: {error}")
    reason = str(error) or type(error).__name__
    return BrokerUnavailable(f"Redis does not answer: {reason}{_tls_hint(error)}")


def _untrusted(error: BaseException) -> str | None:
    """What to tell of a server whose certificate is not trusted; None for any other error."""
    cause = next((one for one in _causes(error) if isinstance(one, ssl.SSLError)), None)
    if "CERTIFICATE_VERIFY_FAILED" not in str(cause or error):
        return None
    reason = getattr(cause, "verify_message", "") or "verification failed"
    return (
        f"the TLS certificate of Redis is not trusted ({reason}): name the certificate it comes"
        " from with --redis-ca-file, and Redis as its certificate does"
    )


def _tls_hint(error: BaseException) -> str:
    """What may be behind a connection that ends as a server's that is going away does."""
    reasons = " ".join(str(one) for one in _causes(error))
    if "CERTIFICATE_REQUIRED" in reasons or "UNKNOWN_CA" in reasons or "EOF occurred" in reasons:
        return (
            " (if it asks for a TLS certificate, show one that it trusts with --redis-cert-file and"
            " --redis-key-file)"
        )
    if "handshake operation timed out" in reasons or "WRONG_VERSION_NUMBER" in reasons:
        return " (does it speak TLS on this port?)"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def named(error: Exception) -> Exception:
    """The error as redis-py should have named it: uvloop answers a write to a connection that has
    just been closed with a RuntimeError, which redis-py lets through."""
    if isinstance(error, RuntimeError) and "the handler is closed" in str(error):
        return redis.ConnectionError("Connection closed while writing.")
    return error


class _ReachingRedis:
    """A context of its own class: a generator's costs a call three times as much."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        known = named(error) if isinstance(error, Exception) else error
        if isinstance(known, redis.RedisError | OSError | TimeoutError):
            raise translated(known) from error


_REACHING_REDIS = _ReachingRedis()


def reaching_redis() -> _ReachingRedis:
    """A context that raises the broker's errors for whatever its body gets from redis-py."""
    return _REACHING_REDIS
