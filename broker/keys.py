"""Names of everything Dragoman keeps in Redis, and of the requests in it."""

import re
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from broker.wire import Lane

GROUP = "workers"
SLOTS = 16_384
MAX_SHARDS = 128

_REQUEST_ID = re.compile(r"[0-9a-f]{34}")
_MODEL_UNSAFE = re.compile(r"[^A-Za-z0-9._/-]+")


def new_request_id(shard: int) -> str:
    """128 random bits and the shard, as 34 hexadecimal digits."""
    return f"{secrets.token_hex(16)}{shard:02x}"


def shard_of(request_id: str, shards: int) -> int | None:
    """The shard a request id names, or None if no request of ours can have that id."""
    if not _REQUEST_ID.fullmatch(request_id):
        return None
    shard = int(request_id[-2:], 16)
    return shard if shard < shards else None


def model_name(name_or_path: str) -> str:
    """The name under which a checkpoint is queued: a hub name as it is, a path's last component."""
    path = Path(name_or_path)
    name = path.resolve().name if path.is_dir() else name_or_path
    return _MODEL_UNSAFE.sub("-", name).strip("-") or "model"


def _crc16(data: bytes) -> int:
    """CRC-16/XMODEM, the checksum Redis Cluster maps hash tags with."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


@cache
def shard_tags(shards: int) -> tuple[str, ...]:
    """A hash tag per shard, each in the middle half of its own equal share of the 16,384 slots.

    The plain numbers do not do: 0, 1 and 2 fall on slots 13,907, 9,842 and 5,649, and a cluster of
    three primaries would get two of them on one primary. With one shard the tag is ``0``.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"shards must be between 1 and {MAX_SHARDS}, not {shards}")
    if shards == 1:
        return ("0",)
    width = SLOTS // shards
    tags = []
    for shard in range(shards):
        low, high = shard * width + width // 4, shard * width + 3 * width // 4
        number = shard
        while not low <= _crc16(str(number).encode()) % SLOTS <= high:
            number += shards
        tags.append(str(number))
    return tuple(tags)


@dataclass(frozen=True)
class Keys:
    """The keys of one shard; all of them share a cluster slot."""

    tag: str

    def queue(self, model: str, lane: Lane) -> str:
        return f"dragoman:{{{self.tag}}}:queue:{model}:{lane}"

    def backlog(self, model: str, lane: Lane) -> str:
        return f"dragoman:{{{self.tag}}}:backlog:{model}:{lane}"

    def request(self, tenant: str, request_id: str) -> str:
        return f"dragoman:{{{self.tag}}}:request:{tenant}:{request_id}"

    def reply(self, process: str) -> str:
        return f"dragoman:{{{self.tag}}}:reply:{process}"

    def idempotency(self, tenant: str, digest: str) -> str:
        return f"dragoman:{{{self.tag}}}:idempotency:{tenant}:{digest}"

    def inflight(self, tenant: str, fingerprint: str) -> str:
        return f"dragoman:{{{self.tag}}}:inflight:{tenant}:{fingerprint}"

    def memory(self, tenant: str, digest: str) -> str:
        return f"dragoman:{{{self.tag}}}:memory:{tenant}:{digest}"

    def memory_index(self, tenant: str) -> str:
        return f"dragoman:{{{self.tag}}}:memory:{tenant}:index"

    def usage(self, tenant: str, month: str) -> str:
        return f"dragoman:{{{self.tag}}}:usage:{tenant}:{month}"

    def load(self) -> str:
        return f"dragoman:{{{self.tag}}}:load"

    def model(self, model: str) -> str:
        return f"dragoman:{{{self.tag}}}:model:{model}"

    def worker(self, worker: str) -> str:
        return f"dragoman:{{{self.tag}}}:worker:{worker}"

    def dead(self) -> str:
        return f"dragoman:{{{self.tag}}}:dead"


# What is about tenants as such lies outside the shards: their number may change, keys must not.
TENANT_KEYS = "dragoman:{tenants}:keys"  # hash: id → digest and tenant of an API key
TENANT_QUOTAS = "dragoman:{tenants}:quotas"  # hash: tenant → its quota


def rate(tenant: str, limit: str) -> str:
    """How far a tenant has used up one of its rate limits."""
    return f"dragoman:{{tenants}}:rate:{tenant}:{limit}"


def entry_order(entry: str) -> tuple[int, int]:
    """What the ids of a stream's entries, ``milliseconds-number``, are in order by."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number or 0)


@cache
def shard_keys(shards: int) -> tuple[Keys, ...]:
    """The keys of every shard, in shard order."""
    return tuple(Keys(tag) for tag in shard_tags(shards))
