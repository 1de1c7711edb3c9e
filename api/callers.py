"""Who calls: from the key of a request to its tenant, and what the tenant's rate limits say to it.

Keys are believed for ``BELIEVED_S``, known and unknown ones alike: for so long a key that was
revoked may go on, and so seldom Redis is asked. What is remembered is the keyed hash of a key.
"""

import asyncio
import hmac
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.requests import Request

from api.problems import Problem
from broker.meter import MINUTE_MS, SECOND_MS, Charge, Meter
from broker.tenants import DEFAULT_TENANT, Quota, digest, key_id

BELIEVED_S = 3.0
MOST_BELIEVED = 10_000  # callers that are remembered, and as many that were turned away
LONGEST_KEY_BYTES = 256

CHALLENGE = 'Bearer realm="dragoman"'


@dataclass(frozen=True)
class Caller:
    """Whose work a request is, and what he may use."""

    tenant: str = DEFAULT_TENANT
    quota: Quota = field(default_factory=Quota)


ANYBODY = Caller()


class Memory(dict[str, tuple[Caller | None, float]]):
    """What is believed of the keys seen last, until when: the oldest go first."""

    def believe(self, name: str, caller: Caller | None, until: float) -> None:
        self.pop(name, None)
        self[name] = caller, until
        while len(self) > MOST_BELIEVED:
            del self[next(iter(self))]


class Callers:
    """Tells callers by their keys. Without a secret nobody is asked, and all are one tenant."""

    def __init__(self, meter: Meter, secret: bytes | None) -> None:
        self.meter = meter
        self._secret = secret
        self._known, self._turned_away = Memory(), Memory()
        self._asking: dict[str, asyncio.Task[Caller | None]] = {}

    @property
    def asked(self) -> bool:
        """Whether requests need a key."""
        return self._secret is not None

    async def identify(self, request: Request) -> Caller:
        """The caller; one call of his is charged. Raises Problem (401, 429) or a broker error."""
        if self._secret is None:
            return ANYBODY
        key = _given(request.headers)
        if key is None:
            raise _unknown("missing_key", "This service needs an API key.", CHALLENGE)
        identity = key_id(key)
        caller = None
        if identity is not None:
            caller = await self._caller(self._secret, identity, key)
        if caller is None:
            challenge = f'{CHALLENGE}, error="invalid_token"'
            raise _unknown("bad_key", "The API key is unknown or was revoked.", challenge)
        limit = caller.quota.requests_per_s
        await self._charge(caller, "requests_per_s", 1, limit, SECOND_MS)
        return caller

    async def charge_text(self, caller: Caller, chars: int) -> None:
        """Takes text from the caller's characters per minute. Raises Problem (429)."""
        limit = caller.quota.chars_per_minute
        await self._charge(caller, "chars_per_minute", chars, limit, MINUTE_MS)

    async def close(self) -> None:
        await self.meter.close()

    async def _charge(
        self, caller: Caller, limit: str, amount: int, allowed: float, period_ms: int
    ) -> None:
        if not allowed:
            return
        charge = Charge(limit, amount, allowed, period_ms)
        refusal = await self.meter.charge(caller.tenant, [charge])
        if refusal is not None:
            raise _limited(limit, allowed, refusal.wait_s)

    async def _caller(self, secret: bytes, identity: str, key: str) -> Caller | None:
        name, now = digest(secret, key), time.monotonic()
        for memory in (self._known, self._turned_away):
            believed = memory.get(name)
            if believed is not None and now < believed[1]:
                return believed[0]
        asking = self._asking.get(name)
        if asking is None:  # a thousand requests at once ask Redis once
            asking = self._asking[name] = asyncio.ensure_future(self._look_up(identity, name))
            asking.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(asking)

    async def _look_up(self, identity: str, name: str) -> Caller | None:
        entry = await self.meter.key(identity)
        right = hmac.compare_digest(entry.digest if entry else "0" * len(name), name)
        caller = None
        if entry is not None and right:
            caller = Caller(entry.tenant, await self.meter.quota(entry.tenant))
        memory = self._turned_away if caller is None else self._known
        memory.believe(name, caller, time.monotonic() + BELIEVED_S)
        return caller


def caller_of(request: Request) -> Caller:
    """The caller of a request that the app has let in."""
    found: Caller = request.state.caller
    return found


def _given(headers: Mapping[str, str]) -> str | None:
    """The key in the headers: ``Authorization: Bearer``, else ``X-API-Key``."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    key = rest.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
    return key[:LONGEST_KEY_BYTES] or None


def _unknown(code: str, what: str, challenge: str) -> Problem:
    return Problem(
        401,
        code,
        f"{what} Send one that is valid: Authorization: Bearer KEY, or X-API-Key: KEY.",
        field="Authorization",
        headers={"WWW-Authenticate": challenge},
    )


def _limited(limit: str, allowed: float, wait_s: float) -> Problem:
    unit = {"requests_per_s": "requests a second", "chars_per_minute": "characters a minute"}
    seconds = max(1, math.ceil(wait_s))
    return Problem(
        429,
        "rate_limited",
        f"The limit of {allowed:,g} {unit[limit]} is used up. Try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
        members={"limit": limit},
    )
