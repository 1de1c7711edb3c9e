"""What an operator does with dead letters: reads them, puts them back, throws them away.

A dead letter is a record that was with a worker at the end of each of several workers. Its request
has had its answer, an error, and keeps it: putting a letter back makes a new request.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from broker.connection import connect, reaching_redis
from broker.keys import Keys, shard_keys
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.wire import Outcome, Record, Submission

DEADLINE_MS = 24 * 3600 * 1000  # of a letter that was put back
PAGE = 500  # letters read at once

_ID = re.compile(r"(?:(\d{1,3}):)?(\d{1,20}-\d{1,20})")
_decode_record = msgspec.json.Decoder(Record).decode
_decode_outcome = msgspec.json.Decoder(Outcome).decode


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that was given up."""

    id: str  # entry in the stream, with several shards behind ``<shard>:``
    model: str
    record: Record
    outcome: Outcome

    @property
    def died_ms(self) -> int:
        """When, in milliseconds since the epoch, by the clock of Redis."""
        return int(self.id.rpartition(":")[2].partition("-")[0])


class DeadLetters:
    """The dead letters of every shard. Every method raises BrokerUnavailable when Redis is away."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._shards = shard_keys(settings.shards)
        self._client: Any = connect(settings)

    def __iter__(self) -> Iterator[DeadLetter]:
        """All of them, oldest first within a shard."""
        for shard, keys in enumerate(self._shards):
            start = "-"
            while entries := self._range(keys, start):
                for entry, fields in entries:
                    yield self._letter(shard, entry, fields)
                start = f"({entries[-1][0].decode()}"

    def _range(self, keys: Keys, start: str) -> list[Any]:
        with reaching_redis():
            found: list[Any] = self._client.xrange(keys.dead(), start, "+", PAGE)
        return found

    def _letter(self, shard: int, entry: bytes, fields: dict[bytes, bytes]) -> DeadLetter:
        prefix = f"{shard}:" if len(self._shards) > 1 else ""
        return DeadLetter(
            f"{prefix}{entry.decode()}",
            fields[b"model"].decode(),
            _decode_record(fields[b"record"]),
            _decode_outcome(fields[b"outcome"]),
        )

    def get(self, letter_id: str) -> DeadLetter | None:
        """The letter, or None if there is none with this id."""
        if (place := self._place(letter_id)) is None:
            return None
        shard, entry = place
        with reaching_redis():
            found = self._client.xrange(self._shards[shard].dead(), entry, entry)
        return self._letter(shard, *found[0]) if found else None

    def discard(self, letter_id: str) -> bool:
        """Removes a letter for good; whether there was one."""
        if (place := self._place(letter_id)) is None:
            return False
        shard, entry = place
        with reaching_redis():
            return bool(self._client.xdel(self._shards[shard].dead(), entry))

    def _place(self, letter_id: str) -> tuple[int, str] | None:
        found = _ID.fullmatch(letter_id)
        if found is None or int(found[1] or 0) >= len(self._shards):
            return None
        return int(found[1] or 0), found[2]

    async def retry(self, producer: Producer, letter: DeadLetter) -> str:
        """Queues the record again as a bulk request of its tenant, then removes the letter; the
        id of that request. Broken off in between, a second call finds the request of the first.

        Raises Overloaded besides the broker's other errors; the letter then stays.
        """
        record = letter.record
        digest = hashlib.sha256(f"dead letter\0{letter.id}".encode()).hexdigest()
        receipt = await producer.submit(
            Submission(
                id=producer.new_request_id(digest),
                tenant=record.tenant,
                model=letter.model,
                lane="bulk",
                source=record.source,
                target=record.target,
                ids=[await self._callers_id(producer, record)],
                texts=[record.text],
                deadline_ms=DEADLINE_MS,
                kept=True,
                idempotency=digest,
                fingerprint=digest,
                traceparent=record.traceparent,
            )
        )
        self.discard(letter.id)
        return receipt.id

    async def _callers_id(self, producer: Producer, record: Record) -> str | int:
        """The caller's name for the record while its first request is still known."""
        status = await producer.status(record.tenant, record.request)
        return status.ids[record.index] if status else record.index

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()
