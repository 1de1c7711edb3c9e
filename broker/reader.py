"""Reading records for a worker: what the window holds and, from the backlogs, the fairest there are
at that moment."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from broker import functions
from broker.calls import together
from broker.connection import connect
from broker.exchange import Command
from broker.keys import GROUP, Keys, entry_order, shard_keys
from broker.settings import BrokerSettings
from broker.wire import LANES, Delivery, Lane, Record

log = logging.getLogger(__name__)

MOST_BLOCK_MS = 5_000
SHARED_BLOCK_MS = 50  # with several shards, how long to wait on one before looking at the next

_decode_record = msgspec.json.Decoder(Record).decode


class Reader:
    """Fresh records of a model, of every shard. Reading raises redis exceptions."""

    def __init__(self, settings: BrokerSettings, model: str, worker: str, client: Any) -> None:
        """``client`` is the worker's, for what does not wait."""
        self._model = model
        self._group = ("XREADGROUP", "GROUP", GROUP, worker)
        self._client = client
        # A blocking read needs a connection whose time-out exceeds its BLOCK: redis-py would give
        # up, or hang, before the server answers.
        self._blocking = connect(settings, MOST_BLOCK_MS / 1000 + settings.redis_timeout_s)
        self._shards = shard_keys(settings.shards)
        self._newest: dict[str, str] = {}  # by stream, of the entries that we were given
        self._cut_off = False  # there may be newer ones that are ours: their read had no answer
        self._server_ahead_ms = 0.0  # of this machine's clock

    def now(self, rooms: Mapping[Lane, int]) -> list[Delivery]:
        """Reads every shard without waiting, the fairest records of its backlog included."""
        return self._fill_up(rooms, self._missed() if self._cut_off else [])

    def _fill_up(self, rooms: Mapping[Lane, int], deliveries: list[Delivery]) -> list[Delivery]:
        """What has been read, and as much more as there is room for."""
        # Each shard comes first in its turn, or a flood of one would starve the others.
        self._shards = (*self._shards[1:], self._shards[0])
        for keys in self._shards:
            left = [
                max(0, rooms.get(lane, 0) - sum(d.record.lane == lane for d in deliveries))
                for lane in LANES
            ]
            if not any(left):
                break
            try:
                deliveries = deliveries + self._take(keys, left)
            except Exception:
                if not deliveries:
                    raise
                break  # what was read is ours; the error comes again
        return deliveries

    def _missed(self) -> list[Delivery]:
        """What was given to us by reads whose answers never came, room or not: nobody else would
        get it before its lease runs out, and then as suspect. Fresh entries are given out in their
        order, so it is newer than all we know of."""
        streams = [keys.queue(self._model, lane) for keys in self._shards for lane in LANES]
        commands: list[Command] = [
            (*self._group, "STREAMS", stream, self._newest.get(stream, "0")) for stream in streams
        ]
        answers = self._together(self._client, commands)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        self._cut_off = False
        return [delivery for answer in answers for delivery in self._deliveries(answer)]

    def _take(self, keys: Keys, rooms: Sequence[int]) -> list[Delivery]:
        """Moves so many of the fairest records of each lane into the window and reads it, in one
        round trip. Not in one step, which would cost more: in between another worker may read them,
        and then moves as many the fewer for itself."""
        names, arguments = [keys.load(), *lane_keys(keys, self._model)], [self._model, *rooms]
        commands: list[Command] = [
            ("FCALL", functions.name("fill"), len(names), *names, *arguments),
            *(
                self._reading(room, [keys.queue(self._model, lane)])
                for lane, room in zip(LANES, rooms, strict=True)
                if room > 0
            ),
        ]
        filled, *answers = self._together(self._client, commands)
        found = [one for one in answers if not isinstance(one, Exception)]
        if deliveries := [delivery for answer in found for delivery in self._deliveries(answer)]:
            return deliveries  # an error beside them comes again
        if functions.missing(filled):
            functions.load(self._client)
            functions.call(self._client, "fill", names, arguments)  # whoever reads next finds it
        for error in (filled, *answers):
            if isinstance(error, Exception) and not functions.missing(error):
                raise error
        return []

    def soon(self, rooms: Mapping[Lane, int], block_ms: int) -> list[Delivery]:
        """Waits up to ``block_ms`` for a record, and reads what there is then."""
        if block_ms <= 0:
            return []
        if len(self._shards) > 1:
            block_ms = min(block_ms, SHARED_BLOCK_MS)
        block_ms = min(block_ms, MOST_BLOCK_MS)
        for keys in self._shards:
            streams = [keys.queue(self._model, lane) for lane in rooms]
            # COUNT counts per stream, so the smaller room bounds both.
            command = self._reading(min(rooms.values()), streams, block_ms)
            (answer,) = self._together(self._blocking, [command])
            if isinstance(answer, Exception):
                raise answer
            deliveries = self._deliveries(answer)
            if deliveries:
                return self._fill_up(rooms, deliveries)  # one woke us; others are in the backlog
        return []

    def _reading(self, room: int, streams: Sequence[str], block_ms: int | None = None) -> Command:
        """The command that reads at most ``room`` fresh entries of each stream."""
        block = () if block_ms is None else ("BLOCK", block_ms)
        return (*self._group, "COUNT", room, *block, "STREAMS", *streams, *(">" for _ in streams))

    def _together(self, client: Any, commands: Sequence[Command]) -> list[Any]:
        try:
            return together(client, commands)
        except BaseException:
            self._cut_off = True
            raise

    def _deliveries(self, answer: Any) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for stream, entries in answer or ():
            read = [(entry, _payload(fields), 1) for entry, fields in entries]
            deliveries += self.sound(stream.decode(), read)
        return deliveries

    def sound(self, stream: str, read: Iterable[tuple[bytes, bytes, int]]) -> list[Delivery]:
        """Entries with their records and how often they were delivered, as deliveries. What is no
        record, and so nobody's, is dropped: every worker would end over it in turn."""
        read_ms = int(time.time() * 1000 + self._server_ahead_ms)
        found = []
        for entry_id, payload, attempts in read:
            entry = entry_id.decode()
            try:
                record = _decode_record(payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                log.error("entry %s of %s is no record and was dropped", entry, stream)
                drop: list[Command] = [("XACK", stream, GROUP, entry), ("XDEL", stream, entry)]
                self._together(self._client, drop)
                continue
            found.append(Delivery(entry, stream, record, attempts, read_ms))
        if found:
            newest = self._newest.get(stream, "0")
            self._newest[stream] = max(newest, found[-1].entry, key=entry_order)
        return found

    def set_clock(self, server_ms: int) -> None:
        """What the server's clock says now."""
        self._server_ahead_ms = server_ms - time.time() * 1000

    def close(self) -> None:
        """Closes its own connection."""
        self._blocking.close()


def lane_keys(keys: Keys, model: str) -> list[str]:
    """Streams and backlogs in the order that the functions want."""
    pairs = [(keys.queue(model, lane), keys.backlog(model, lane)) for lane in LANES]
    return [name for pair in pairs for name in pair]


def _payload(fields: Any) -> bytes:
    """The record that is an entry's one field, b"" if it is another's entry, or deleted. A
    cluster's client makes a dict of the fields."""
    if isinstance(fields, dict):
        fields = [one for pair in fields.items() for one in pair]
    found: bytes = fields[1] if fields and fields[0] == b"record" else b""
    return found
