"""The API's side of keys and tenants: which key belongs to whom, what a tenant may still use, and
what it has used."""

from collections.abc import Sequence
from typing import Any

import msgspec

from broker import functions
from broker.coalescer import Coalescer
from broker.connection import connect_async, reaching_redis
from broker.keys import TENANT_KEYS, TENANT_QUOTAS, rate
from broker.settings import BrokerSettings
from broker.tenants import KeyEntry, Quota, decode_entry, decode_quota

SECOND_MS = 1_000
MINUTE_MS = 60_000


class Charge(msgspec.Struct, frozen=True):
    """Something that is taken from a rate limit of a tenant; ``limit`` names it."""

    limit: str
    amount: float
    allowed: float  # so much in each period; as much may come at once
    period_ms: int


class Refusal(msgspec.Struct, frozen=True):
    """The charge that does not fit, and how long it is until it will."""

    charge: Charge
    wait_s: float


class Meter:
    """One per API process. Every method raises BrokerUnavailable or BrokerMisconfigured."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._redis = Coalescer(connect_async(settings))

    async def key(self, identity: str) -> KeyEntry | None:
        """The key of that id; None if there is none."""
        with reaching_redis():
            found = await self._redis.execute("HGET", TENANT_KEYS, identity)
        return decode_entry(found) if found else None

    async def quota(self, tenant: str) -> Quota:
        with reaching_redis():
            found = await self._redis.execute("HGET", TENANT_QUOTAS, tenant)
        return decode_quota(found) if found else Quota()

    async def charge(self, tenant: str, charges: Sequence[Charge]) -> Refusal | None:
        """Takes all charges or none; the limits hold over all API processes. None if they fit."""
        if not charges:
            return None
        keys = [rate(tenant, charge.limit) for charge in charges]
        arguments: list[Any] = []
        for charge in charges:
            arguments += (charge.amount * charge.period_ms / charge.allowed, charge.period_ms)
        # Not tried again after a cut connection: it might take twice.
        which, wait_ms = await functions.call_together(
            self._redis, self._settings, "charge", keys, arguments, retry=False
        )
        return Refusal(charges[which - 1], wait_ms / 1000) if which else None

    async def close(self) -> None:
        await self._redis.close()
