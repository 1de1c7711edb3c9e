"""The model tier's side of the broker: reading records under lease, completing them, reclaiming
what other workers left, and reporting."""

import logging
import math
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import redis

from broker import completion, functions
from broker.calls import together
from broker.completion import End
from broker.connection import connect, reaching_redis
from broker.errors import BrokerUnavailable
from broker.exchange import Command
from broker.keys import GROUP, Keys, shard_keys, shard_of
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

MOST_BLOCK_MS = 5_000
MOST_WATCHED = 10_000  # requests whose watchers are remembered between begin and complete
MOST_COMPLETIONS = 256  # per call: 1,024 held up a blocked Redis for 31 ms
MOST_SUSPECTS = 8  # records of unknown guilt that may share an engine
SHARED_BLOCK_MS = 50  # with several shards, how long to wait on one before looking at the next
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)

_Item = TypeVar("_Item")

_decode_record = msgspec.json.Decoder(Record).decode
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
        # A blocking read needs a connection whose time-out exceeds its BLOCK: redis-py would give
        # up, or hang, before the server answers.
        self._reader = connect(settings, MOST_BLOCK_MS / 1000 + settings.redis_timeout_s)
        self._writer = connect(settings)
        self._renewer = connect(settings)
        # Request key → processes, as begin found them; written by ``begin`` alone.
        self._watchers: dict[str, list[str]] = {}
        self._server_ahead_ms = 0.0  # of this machine's clock

    def prepare(self) -> None:
        """Checks the server, loads the functions where this user may, makes the groups."""
        functions.init(self.settings)
        with reaching_redis():
            self._make_groups()
            seconds, microseconds = self._client.time()
            self._set_clock(seconds * 1000 + microseconds // 1000)

    def _make_groups(self) -> None:
        for keys in self._shards:
            self._enlist(keys, [])

    def announce(self, entry: ModelEntry) -> None:
        """Tells the API tier what the model can do; stays when the worker is gone."""
        fields: list[Any] = ["revision", entry.revision, "languages", _encode(entry.languages)]
        fields += ("max_source_tokens", entry.max_source_tokens)
        with reaching_redis():
            for keys in self._shards:
                self._enlist(keys, fields)

    def _enlist(self, keys: Keys, fields: list[Any]) -> None:
        streams = [keys.queue(self.model, lane) for lane in LANES]
        self._call("enlist", [keys.model(self.model), *streams], fields)

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
                return self._read_now(rooms) or self._read_blocking(rooms, block_ms)
            except redis.ResponseError as error:
                # A server that restarted empty, or was flushed, has lost the groups.
                if not any(word in str(error) for word in ("NOGROUP", "UNBLOCKED")):
                    raise
                self._make_groups()
                return []

    def _read_now(self, rooms: dict[Lane, int]) -> list[Delivery]:
        """Reads every shard without waiting, the fairest records of its backlog included."""
        deliveries: list[Delivery] = []
        for keys in self._shards:
            left = [
                max(0, rooms.get(lane, 0) - sum(d.record.lane == lane for d in deliveries))
                for lane in LANES
            ]
            if not any(left):
                break
            deliveries += self._take(keys, left)
        return deliveries

    def _take(self, keys: Keys, rooms: Sequence[int]) -> list[Delivery]:
        """Moves so many of the fairest records of each lane into the window and reads it, in one
        round trip. Not in one step, which would cost more: in between another worker may read them,
        and then moves as many the fewer for itself."""
        names, arguments = [keys.load(), *self._lanes(keys)], [self.model, *rooms]
        commands: list[Command] = [
            ("FCALL", functions.name("fill"), len(names), *names, *arguments),
            *(
                self._reading(room, [keys.queue(self.model, lane)])
                for lane, room in zip(LANES, rooms, strict=True)
                if room > 0
            ),
        ]
        filled, *answers = together(self._client, commands)
        if functions.missing(filled):
            functions.load(self._client)
            self._call("fill", names, arguments)  # whoever reads next finds it
        for answer in (filled, *answers):
            if isinstance(answer, Exception) and not functions.missing(answer):
                raise answer
        return [delivery for answer in answers for delivery in self._deliveries(answer)]

    def _read_blocking(self, rooms: dict[Lane, int], block_ms: int) -> list[Delivery]:
        if block_ms <= 0:
            return []
        if len(self._shards) > 1:
            block_ms = min(block_ms, SHARED_BLOCK_MS)
        block_ms = min(block_ms, MOST_BLOCK_MS)
        for keys in self._shards:
            streams = [keys.queue(self.model, lane) for lane in rooms]
            # COUNT counts per stream, so the smaller room bounds both.
            command = self._reading(min(rooms.values()), streams, block_ms)
            (answer,) = together(self._reader, [command])
            if isinstance(answer, Exception):
                raise answer
            deliveries = self._deliveries(answer)
            if deliveries:
                # One woke us; the others are still in the backlog.
                rest = {
                    lane: room - sum(d.record.lane == lane for d in deliveries)
                    for lane, room in rooms.items()
                }
                return deliveries + self._read_now(rest)
        return []

    def _reading(self, room: int, streams: Sequence[str], block_ms: int | None = None) -> Command:
        """The command that reads at most ``room`` fresh entries of each stream."""
        block = () if block_ms is None else ("BLOCK", block_ms)
        who = ("XREADGROUP", "GROUP", GROUP, self.worker, "COUNT", room)
        return (*who, *block, "STREAMS", *streams, *(">" for _ in streams))

    def _deliveries(self, answer: Any) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for stream, entries in answer or ():
            read = [(entry, _payload(fields), 1) for entry, fields in entries]
            deliveries += self._sound(stream.decode(), read)
        return deliveries

    def _sound(self, stream: str, read: Iterable[tuple[bytes, bytes, int]]) -> list[Delivery]:
        """Entries with their records and how often they were delivered, as deliveries. What is no
        record, and so nobody's, is dropped: every worker would end over it in turn."""
        read_ms = int(time.time() * 1000 + self._server_ahead_ms)
        found = []
        for entry, payload, attempts in read:
            try:
                record = _decode_record(payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                log.error("entry %s of %s is no record and was dropped", entry.decode(), stream)
                self._client.xack(stream, GROUP, entry)
                self._client.xdel(stream, entry)
                continue
            found.append(Delivery(entry.decode(), stream, record, attempts, read_ms))
        return found

    def _set_clock(self, server_ms: int) -> None:
        self._server_ahead_ms = server_ms - time.time() * 1000

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
            ends, keys, self._lanes(keys), self.model, self.settings, self._watchers
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
                        return self._sound(stream, answer)
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
                names = [keys.worker(self.worker), keys.load(), *self._lanes(keys)]
                arguments = [self.model, self.worker, ttl_ms, max(1, batch_records), *fields]
                self._set_clock(self._call("heartbeat", names, arguments))

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
        for client in (self._client, self._reader, self._writer, self._renewer):
            client.close()

    def _call(self, short: str, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:
        return functions.call(self._client, short, keys, arguments)

    def _lease_ms(self) -> int:
        return int(self.settings.lease_s * 1000)

    def _lanes(self, keys: Keys) -> list[str]:
        """Streams and backlogs in the order that the functions want."""
        pairs = [(keys.queue(self.model, lane), keys.backlog(self.model, lane)) for lane in LANES]
        return [name for pair in pairs for name in pair]

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


def _payload(fields: Any) -> bytes:
    """The record among an entry's fields, b"" if there is none. A cluster's client makes a dict of
    the fields."""
    if isinstance(fields, list):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    found: bytes = fields.get(b"record", b"")
    return found


def _by_stream(deliveries: Sequence[Delivery]) -> dict[str, list[str]]:
    streams: defaultdict[str, list[str]] = defaultdict(list)
    for delivery in deliveries:
        streams[delivery.stream].append(delivery.entry)
    return streams
