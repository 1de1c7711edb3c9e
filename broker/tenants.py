"""API keys and the tenants they stand for: what a key looks like, how it is stored, what a tenant
may use, and the operator's side of both. The API's side is ``broker.meter``.

A key is stored as HMAC-SHA-256 under a secret that never lies in Redis. A slow hash, as passwords
need, would buy nothing: a key holds 256 random bits, which nobody guesses however fast he can try,
and each request would pay for it. The secret is there for the other direction: whoever can write to
Redis, or reads a backup of it, can neither make an entry that opens the API nor check a key that he
has found. Losing the secret means that all keys have to be made anew.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from broker.connection import connect, reaching_redis
from broker.errors import BrokerMisconfigured
from broker.keys import TENANT_KEYS, TENANT_QUOTAS
from broker.options import option
from broker.settings import BrokerSettings

DEFAULT_TENANT = "default"  # of every request while no keys are asked for
LEAST_SECRET_CHARS = 32
MAX_NOTE_CHARS = 200
KEY_MARK = "dgm"  # by which a person, or a scanner of leaked secrets, knows what it is

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(rf"{KEY_MARK}_([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
_ID = re.compile(rf"(?:{KEY_MARK}_)?([0-9a-f]{{12}})")


@dataclass(frozen=True)
class KeySettings:
    """Who is let in; the same for the API and whatever starts it."""

    key_secret_file: str = option(
        "",
        "File whose first line is the secret under which API keys are stored. With one, every"
        " request needs a key.",
    )
    insecure: bool = option(
        False, "Serve without API keys even where other machines can reach the address."
    )


class Quota(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tenant may use; 0 is no limit."""

    requests_per_s: float = 0.0  # API calls of any kind
    chars_per_minute: int = 0  # of text handed in
    outstanding_chars: int = 0  # queued or running
    weight: float = 1.0  # its share of the fair queue

    def __post_init__(self) -> None:
        for name in ("requests_per_s", "chars_per_minute", "outstanding_chars"):
            if not 0 <= getattr(self, name) <= 1e12:
                raise ValueError(f"{name} must be 0 (no limit) or more")
        if not 0.001 <= self.weight <= 1000:
            raise ValueError("weight must be between 0.001 and 1000")


class KeyEntry(msgspec.Struct, frozen=True):
    """A key as it is stored."""

    tenant: str
    digest: str  # HMAC-SHA-256 of the whole key, hexadecimal
    created_s: int  # seconds since the epoch
    note: str = ""


_encode = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(KeyEntry).decode
decode_quota = msgspec.json.Decoder(Quota).decode


def check_exposure(host: str, settings: KeySettings) -> None:
    """Raises BrokerMisconfigured where other machines would be served without being asked for a
    key, unless that is what the operator says he wants."""
    if settings.key_secret_file or settings.insecure or only_here(host):
        return
    raise BrokerMisconfigured(
        f"--host {host or '0.0.0.0'} can be reached by other machines, and no API keys are asked"
        " for. Ask for them with --key-secret-file FILE (docs/security.md says how), listen on"
        " 127.0.0.1, or say --insecure"
    )


def only_here(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        found = socket.getaddrinfo(host or None, None, flags=socket.AI_PASSIVE)
        return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)
    except (OSError, ValueError):
        return False  # what cannot be told counts as open


def read_secret(path: str) -> bytes:
    """The server's secret. Raises BrokerMisconfigured with the remedy, never with the content."""
    remedy = "Make one: (umask 077; openssl rand -base64 48 > FILE)"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BrokerMisconfigured(
            f"--key-secret-file {path} cannot be read: {reason}. {remedy}"
        ) from None
    secret = text.partition("\n")[0].strip()
    if len(secret) < LEAST_SECRET_CHARS:
        raise BrokerMisconfigured(
            f"--key-secret-file {path} must begin with a line of at least {LEAST_SECRET_CHARS}"
            f" characters. {remedy}"
        )
    return secret.encode()


def key_id(key: str) -> str | None:
    """The public part of a key, or None for what no key of ours can be."""
    found = _KEY.fullmatch(key)
    return found and found[1]


def digest(secret: bytes, key: str) -> str:
    """What of a key is stored."""
    return hmac.digest(secret, key.encode(), hashlib.sha256).hex()


def check_tenant(tenant: str) -> None:
    if not _TENANT.fullmatch(tenant):
        raise ValueError("a tenant's name is 1 to 64 letters, digits, _ and -")


class Tenants:
    """The operator's side: makes and takes back keys, sets quotas. ValueError for what does not
    fit, the broker's errors for Redis."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._client: Any = connect(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def create(self, secret: bytes, tenant: str, note: str = "") -> str:
        """A new key of the tenant: the only time that anybody sees it."""
        check_tenant(tenant)
        if len(note) > MAX_NOTE_CHARS or not (note.isprintable()):
            raise ValueError(f"a note is at most {MAX_NOTE_CHARS} printable characters")
        while True:
            identity = secrets.token_hex(6)
            key = f"{KEY_MARK}_{identity}_{secrets.token_urlsafe(32)}"
            entry = KeyEntry(tenant, digest(secret, key), int(time.time()), note)
            with reaching_redis():
                if self._client.hsetnx(TENANT_KEYS, identity, _encode(entry)):
                    return key

    def keys(self) -> dict[str, KeyEntry]:
        """All keys by id, in the order of their making."""
        with reaching_redis():
            found = self._client.hgetall(TENANT_KEYS)
        entries = {field.decode(): decode_entry(value) for field, value in found.items()}
        return dict(sorted(entries.items(), key=lambda item: item[1].created_s))

    def revoke(self, identity: str) -> bool:
        """Takes a key back, by its id or by what stands before the second ``_`` of it; False if
        there is none."""
        found = _ID.fullmatch(identity)
        if found is None:
            raise ValueError("a key is revoked by its id, as `dragoman keys list` shows it")
        with reaching_redis():
            return bool(self._client.hdel(TENANT_KEYS, found[1]))

    def quota(self, tenant: str) -> Quota:
        check_tenant(tenant)
        with reaching_redis():
            found = self._client.hget(TENANT_QUOTAS, tenant)
        return decode_quota(found) if found else Quota()

    def set_quota(self, tenant: str, quota: Quota) -> None:
        check_tenant(tenant)
        with reaching_redis():
            if quota == Quota():
                self._client.hdel(TENANT_QUOTAS, tenant)
            else:
                self._client.hset(TENANT_QUOTAS, tenant, _encode(quota))
