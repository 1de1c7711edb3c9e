"""The API's side of keys and tenants: which key belongs to whom, what a tenant may still use, and
what it has used."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from broker import functions
from broker.admission import DAY, MONTH
from broker.coalescer import Coalescer
from broker.connection import connect_async, reaching_redis
from broker.keys import TENANT_KEYS, TENANT_QUOTAS, rate, shard_keys
from broker.settings import BrokerSettings
from broker.tenants import KeyEntry, Quota, decode_entry, decode_quota
from broker.wire import LANES

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


class Amounts(msgspec.Struct, frozen=True):
    """What a tenant handed in and had queued."""

    requests: int
    records: int
    characters: int


class Usage(msgspec.Struct, frozen=True):
    """What a tenant has used."""

    today: Amounts
    month: Amounts
    outstanding_chars: int  # of one model


class Meter:
    """One per API process. Every method raises BrokerUnavailable or BrokerMisconfigured."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._redis = Coalescer(connect_async(settings), settings.redis_timeout_s)

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

    async def usage(self, tenant: str, model: str, now: datetime) -> Usage:
        """What was used in the day and the month of ``now`` (UTC), over all shards."""
        lanes = [f"tenant:{model}:{lane}:{tenant}" for lane in LANES]
        shards = shard_keys(self._settings.shards)
        with reaching_redis():
            counts, outstanding = await asyncio.gather(
                self._of_each(
                    ("HGETALL", keys.usage(tenant, now.strftime(MONTH))) for keys in shards
                ),
                self._of_each(("HMGET", keys.load(), *lanes) for keys in shards),
            )
        fields = [item for found in counts for item in _pairs(found)]
        return Usage(
            today=_amounts(field for field in fields if field[0] == now.strftime(DAY)),
            month=_amounts(fields),
            outstanding_chars=sum(int(cost or 0) for costs in outstanding for cost in costs),
        )

    async def _of_each(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        return await asyncio.gather(*(self._redis.execute(*command) for command in commands))

    async def close(self) -> None:
        await self._redis.close()


def _pairs(found: Mapping[bytes, bytes]) -> Iterator[tuple[str, str, int]]:
    """Day, what was counted, and how many, of each field of a usage hash."""
    for field, count in found.items():
        day, _, what = field.decode().partition(":")
        yield day, what, int(count)


def _amounts(fields: Iterable[tuple[str, str, int]]) -> Amounts:
    sums = {"requests": 0, "records": 0, "characters": 0}
    for _, what, count in fields:
        sums[what] += count
    return Amounts(**sums)
