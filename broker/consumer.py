"""The model tier's side of the broker: taking records under lease, completing them, reclaiming
what other workers left, and reporting."""

import logging
import math
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import redis

from broker import completion, functions
from broker.completion import End
from broker.connection import connect, reaching_redis
from broker.errors import BrokerUnavailable
from broker.keys import Keys, shard_keys, shard_of
from broker.reader import Reader, lane_keys
from broker.settings import BrokerSettings
from broker.wire import (
    LANES,
    Completion,
    Delivery,
    Lane,
    ModelEntry,
    Record,
    Verdict,
    WorkerEntry,
)

log = logging.getLogger(__name__)

MOST_WATCHED = 10_000  # requests whose watchers are remembered between begin and complete
MOST_COMPLETIONS = 256  # per call: 1,024 held up a blocked Redis for 31 ms
MOST_SUSPECTS = 8  # records of unknown guilt that may share an engine
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)

_Item = TypeVar("_Item")

_encode = msgspec.json.Encoder().encode


def worker_id() -> str:
    """A name no other worker has had: host, process, random."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class Consumer:
    """One worker's consumer in every shard's group. Three threads may share it: one that completes
    and discards, one that renews, and one that does all else; each has a connection of its own.

    Every method raises BrokerUnavailable when Redis is away and BrokerMisconfigured when it cannot
    serve us as it is set up; none of them has changed anything that calling again would spoil.
    """

    def __init__(self, settings: BrokerSettings, model: str) -> None:
        self.settings = settings
        self.model = model
        self.worker = worker_id()
        self.give_up: Callable[[], bool] = lambda: False  # asked between tries of ``complete``
        self._shards = shard_keys(settings.shards)
        self._client = connect(settings)
        self._reader = Reader(settings, model, self.worker, self._client)
        self._entry: list[Any] = []  # what was announced, for a server that has lost it
        self._writer = connect(settings)
        self._renewer = connect(settings)
        # Request key → processes, as begin found them; written by ``begin`` alone.
        self._watchers: dict[str, list[str]] = {}

    def prepare(self) -> None:
        """Checks the server, loads the functions where this user may, makes the groups."""
        functions.init(self.settings)
        with reaching_redis():
            self._make_groups()
            seconds, microseconds = self._client.time()
            self._reader.set_clock(seconds * 1000 + microseconds // 1000)

    def _make_groups(self) -> None:
        for keys in self._shards:
            self._enlist(keys)

    def announce(self, entry: ModelEntry) -> None:
        """Tells the API tier what the model can do; stays when the worker is gone."""
        self._entry = ["revision", entry.revision, "languages", _encode(entry.languages)]
        self._entry += ("max_source_tokens", entry.max_source_tokens)
        with reaching_redis():
            for keys in self._shards:
                self._enlist(keys)

    def _enlist(self, keys: Keys) -> None:
        streams = [keys.queue(self.model, lane) for lane in LANES]
        self._call("enlist", [keys.model(self.model), *streams], self._entry)

    # ── Reading ──────────────────────────────────────────────────────────────────────────────

    def read(self, interactive: int, bulk: int, block_ms: int) -> list[Delivery]:
        """At most that many new records per lane, interactive ones first, now under our lease.

        Waits up to ``block_ms`` for the first one; [] if none came.
        """
        rooms: dict[Lane, int] = {"interactive": interactive, "bulk": bulk}
        rooms = {lane: room for lane, room in rooms.items() if room > 0}
        if not rooms:
            return []
        with reaching_redis():
            try:
                return self._reader.now(rooms) or self._reader.soon(rooms, block_ms)
            except redis.ResponseError as error:
                # A server that restarted empty, or was flushed, has lost the groups.
                if not any(word in str(error) for word in ("NOGROUP", "UNBLOCKED")):
                    raise
                self._make_groups()
                return []

    def begin(self, deliveries: Sequence[Delivery], least_s: float = 0.0) -> list[Verdict]:
        """What to do with each delivery before spending model time on it; marks their requests
        running. ``least_s`` is how soon a result can be there at best, 0 while nothing else waits:
        then a request that all its callers have left goes on, since they may come back.

        ``go``; ``expired`` (the deadline is over, or will be by then) or ``cancelled``: complete
        it as such; ``over``: ``discard`` it, since the record has its result already or its request
        is gone.
        """
        verdicts: dict[tuple[str, str], Verdict] = {}
        for keys, group in self._by_shard(deliveries, lambda delivery: delivery.record):
            requests = completion.by_request(group, lambda delivery: delivery.record)
            names = [keys.request(*request) for request in requests]
            asked = [math.ceil(least_s * 1000), *map(completion.indexes, requests.values())]
            with reaching_redis():
                answer = self._call("begin", names, asked)
            for name, held, (verdict, watchers, over) in zip(
                names, requests.values(), answer, strict=True
            ):
                self._watchers[name] = watchers.decode().split()
                verdicts |= completion.judged(held, verdict.decode(), over)
        while len(self._watchers) > MOST_WATCHED:
            # Whoever is forgotten too early is told by the second call in ``_write``.
            del self._watchers[next(iter(self._watchers))]
        if not verdicts:
            return ["go"] * len(deliveries)
        return [verdicts.get(d.place, "go") for d in deliveries]

    # ── Completing ───────────────────────────────────────────────────────────────────────────

    def complete(self, completions: Sequence[Completion]) -> int:
        """Writes results and acknowledges, in one step per shard and 256 records; returns how many
        of the records were not already finished by another worker.

        Tries until Redis answers; raises BrokerUnavailable only when ``give_up()`` says so.
        """
        return self._finish([(c.delivery, c.outcome, c.dead) for c in completions])

    def discard(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledges records that need no result."""
        self._finish([(d, None, False) for d in deliveries])

    def _finish(self, ends: list[End]) -> int:
        first = 0
        for keys, group in self._by_shard(ends, lambda end: end[0].record):
            for start in range(0, len(group), MOST_COMPLETIONS):
                part = group[start : start + MOST_COMPLETIONS]
                first += self._until_answered(partial(self._write, keys, part))
        return first

    def _write(self, keys: Keys, ends: list[End]) -> int:
        names, arguments = completion.told(
            ends, keys, lane_keys(keys, self.model), self.model, self.settings, self._watchers
        )
        acknowledged, news = functions.call(self._writer, "complete", names, arguments)
        for process, line in zip(news[::2], news[1::2], strict=True):
            # It began to watch after ``begin`` looked.
            self._writer.execute_command(
                "XADD", keys.reply(process.decode()), "NOMKSTREAM", "*", *line
            )
        return int(acknowledged)

    def _until_answered(self, attempt: Callable[[], int]) -> int:
        tries = 0
        while True:
            try:
                with reaching_redis():
                    return attempt()
            except BrokerUnavailable as error:
                if self.give_up():
                    raise
                if tries == 0:
                    log.warning("completing: %s; trying until Redis answers", error)
                time.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1

    # ── Leases ───────────────────────────────────────────────────────────────────────────────

    def renew(self, deliveries: Sequence[Delivery]) -> set[tuple[str, str]]:
        """Renews our leases; returns the places that are still ours. Safe from another thread."""
        ours: set[tuple[str, str]] = set()
        with reaching_redis():
            for stream, entries in _by_stream(deliveries).items():
                answer = functions.call(self._renewer, "renew", [stream], [self.worker, *entries])
                ours |= {(stream, entry.decode()) for entry in answer}
        return ours

    def reclaim(self, limit: int) -> list[Delivery]:
        """Records whose lease ran out elsewhere, of one kind: any number up to ``limit`` that were
        handed back (attempts 1), or at most 8 delivered once before (attempts 2), or a single one
        (attempts 3 or more)."""
        with reaching_redis():
            for keys in self._shards:
                for lane in LANES:
                    stream = keys.queue(self.model, lane)
                    try:
                        answer = self._call(
                            "reclaim",
                            [stream],
                            [self.worker, self._lease_ms(), limit, min(limit, MOST_SUSPECTS)],
                        )
                    except redis.ResponseError as error:
                        if "NOGROUP" not in str(error):
                            raise
                        continue  # read makes the group
                    if answer:
                        return self._reader.sound(stream, answer)
        return []

    def hand_back(self, deliveries: Sequence[Delivery]) -> None:
        """Makes records claimable at once by others, as if they had never been delivered."""
        with reaching_redis():
            for stream, entries in _by_stream(deliveries).items():
                self._call("hand_back", [stream], [self.worker, self._lease_ms() + 1, *entries])

    # ── Reporting ────────────────────────────────────────────────────────────────────────────

    def heartbeat(self, entry: WorkerEntry, batch_records: int) -> None:
        """Reports this worker for three heartbeats and fills the ready window.

        ``batch_records`` is how many records make one batch of ours: while fewer than all workers'
        batches are waiting, the workers are not full.
        """
        fields: list[Any] = []
        for field in (
            *("model", "device", "engine", "slots", "rate", "completed", "started_ms", "busy"),
            *("sentences", "cached", "coalesced"),
        ):
            fields += (field, getattr(entry, field))
        fields += ("warnings", _encode(entry.warnings))
        ttl_ms = int(self.settings.heartbeat_s * 3000)
        with reaching_redis():
            for keys in self._shards:
                names = [keys.worker(self.worker), keys.load(), *lane_keys(keys, self.model)]
                arguments = [self.model, self.worker, ttl_ms, max(1, batch_records), *fields]
                self._reader.set_clock(self._call("heartbeat", names, arguments))

    def retire(self) -> None:
        """Leaves the groups and the register; consumers that still hold records stay until those
        are reclaimed."""
        with reaching_redis():
            for keys in self._shards:
                streams = [keys.queue(self.model, lane) for lane in LANES]
                names = [keys.worker(self.worker), keys.load(), *streams]
                self._call("retire", names, [self.model, self.worker])

    def close(self) -> None:
        """Closes the connections."""
        self._reader.close()
        for client in (self._client, self._writer, self._renewer):
            client.close()

    def _call(self, short: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        return functions.call(self._client, short, keys, arguments)

    def _lease_ms(self) -> int:
        return int(self.settings.lease_s * 1000)

    def _by_shard(
        self, items: Sequence[_Item], record: Callable[[_Item], Record]
    ) -> list[tuple[Keys, list[_Item]]]:
        if len(self._shards) == 1:
            return [(self._shards[0], list(items))] if items else []
        groups: defaultdict[int, list[_Item]] = defaultdict(list)
        for item in items:
            shard = shard_of(record(item).request, len(self._shards))
            groups[shard or 0].append(item)
        return [(self._shards[shard], group) for shard, group in groups.items()]


def _by_stream(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for delivery in deliveries:
        streams[delivery.stream].append(delivery.entry)
    return streams
