"""The translation memory: what a tenant's sentences were translated to, for a while, in Redis.

It belongs to one tenant at a time: that an answer came from memory would tell one tenant what
another has had translated. It holds translations, under digests of what they are translations of;
no source text. Nothing depends on it: when it cannot be used, everything is translated.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import redis

from broker.connection import connect, reaching_redis
from broker.errors import BrokerError
from broker.functions import primaries
from broker.keys import Keys, shard_keys
from broker.settings import BrokerSettings

log = logging.getLogger(__name__)

MOST_NAMES = 512  # per command and pipeline: longer ones would hold up every other client
SLACK_PART = 32  # a full memory forgets so much of its size more than it must, to do so less often
FULL_PART = 0.75  # of Redis' maxmemory: what is left is for work, which must not be refused
LOOK_S = 5.0  # how long what Redis said about its memory is believed


class Name(NamedTuple):
    """What a translation is found by: hexadecimal digest of all that decides it, and whose it is.

    Two different things never have the same digest; ``inference_worker.memory`` makes it.
    """

    tenant: str
    digest: str


class Memory:
    """The memories of all tenants. Safe to use from several threads.

    ``find`` and ``keep`` raise nothing: a Redis that fails remembers nothing.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._shards = shard_keys(settings.shards)
        self._client = connect(settings)
        self._ttl_ms = settings.memory_ttl_s * 1000
        self._most = max(1, settings.memory_sentences // settings.shards)  # a tenant's, a shard's
        self._failing = False
        self._full = False
        self._look_s = 0.0

    def find(self, names: Collection[Name]) -> dict[Name, str]:
        """Those of the translations that are remembered: one call per shard and 512 names."""
        found: dict[Name, str] = {}
        for keys, part in self._by_shard(names):
            values = self._patiently(partial(self._read, keys, part), [])
            found |= {
                name: text
                for name, value in zip(part, values, strict=False)
                if (text := _text(value)) is not None
            }
        return found

    def keep(self, translations: Mapping[Name, str]) -> None:
        """Remembers translations for ``memory_ttl_s``, one pipeline per shard and 512 of them. The
        oldest are forgotten where a tenant has more than it may."""
        for keys, part in self._by_shard(translations):
            kept = {name: translations[name] for name in part}
            self._patiently(partial(self._write, keys, kept), None)

    def forget(self, tenant: str) -> int:
        """Forgets all that a tenant's memory holds; returns how many sentences that were.

        Raises BrokerUnavailable and BrokerMisconfigured.
        """
        forgotten = 0
        with reaching_redis():
            for keys in self._shards:
                while gone := self._forget_oldest(keys, tenant, MOST_NAMES):
                    forgotten += gone
        return forgotten

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _read(self, keys: Keys, names: list[Name]) -> list[bytes | None]:
        # A key of another type counts as none.
        values: list[bytes | None] = self._client.mget([keys.memory(*name) for name in names])
        return values

    def _write(self, keys: Keys, translations: Mapping[Name, str]) -> None:
        if self._crowded():
            return
        now_us = time.time_ns() // 1_000  # only the order counts, also within a millisecond
        digests: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for name in translations:
            digests[name.tenant][name.digest] = now_us
        pipeline = self._client.pipeline(transaction=False)
        for tenant, scores in digests.items():
            # First, so that nothing is remembered that no index knows of.
            pipeline.zadd(keys.memory_index(tenant), scores)
            pipeline.pexpire(keys.memory_index(tenant), self._ttl_ms)
            pipeline.zcard(keys.memory_index(tenant))
        for name, text in translations.items():
            # Two thirds of the processor time that ``set`` takes.
            pipeline.execute_command("SET", keys.memory(*name), text, "PX", self._ttl_ms)
        answers = pipeline.execute(raise_on_error=False)
        for at, tenant in enumerate(digests):
            held = answers[3 * at + 2]
            if isinstance(held, redis.ResponseError) and str(held).startswith("WRONGTYPE"):
                self._client.unlink(keys.memory_index(tenant))  # made anew by the next call
            elif isinstance(held, int) and held > self._most:
                spare = held - self._most + self._most // SLACK_PART
                self._forget_oldest(keys, tenant, min(spare, MOST_NAMES * 2))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer

    def _forget_oldest(self, keys: Keys, tenant: str, count: int) -> int:
        oldest = self._client.zpopmin(keys.memory_index(tenant), count)
        if oldest:
            self._client.unlink(*(keys.memory(tenant, digest.decode()) for digest, _ in oldest))
        return len(oldest)

    def _crowded(self) -> bool:
        """Whether Redis has little memory left: what can be done again must not take it from work
        that was accepted, or is about to be."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            facts = [primary.info("memory") for primary in primaries(self._client)]
            full = any(
                fact["used_memory"] > FULL_PART * fact["maxmemory"]
                for fact in facts
                if fact.get("maxmemory")
            )
            if full and not self._full:
                log.warning("translation memory: nothing is added while Redis is nearly full")
            self._full, self._look_s = full, now_s + LOOK_S
        return self._full

    def _by_shard(self, names: Iterable[Name]) -> list[tuple[Keys, list[Name]]]:
        """The names in calls: of one shard, decided by the digest, and not too many."""
        groups: defaultdict[int, list[Name]] = defaultdict(list)
        for name in names:
            groups[int(name.digest[:8], 16) % len(self._shards)].append(name)
        return [
            (self._shards[shard], group[start : start + MOST_NAMES])
            for shard, group in groups.items()
            for start in range(0, len(group), MOST_NAMES)
        ]

    def _patiently(self, attempt: Callable[[], Any], otherwise: Any) -> Any:
        """What ``attempt`` returns, or ``otherwise`` when Redis fails; says so once."""
        try:
            with reaching_redis():
                answer = attempt()
        except BrokerError as error:
            if not self._failing:
                log.warning("translation memory: %s; going on without", error)
            self._failing = True
            return otherwise
        self._failing = False
        return answer


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None  # not ours
