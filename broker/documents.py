"""Documents between the tiers: what an upload is, how far its translation has come, and where both
lie in Redis. The API stores uploads and reads results, the document worker does the rest; they
share no disk. Every key expires: an upload with its deadline, a result with its time to live.
"""

import re
import secrets
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from broker.connection import connect_async, reaching_redis
from broker.document_settings import DocumentSettings
from broker.keys import new_request_id, shard_keys, shard_of
from broker.settings import BrokerSettings
from broker.wire import TERMINAL, State

MAX_DOCUMENT_BYTES = 10 * 1024 * 1024
MAX_REPORTED = 1_000  # records that a report names; it counts all of them
TRANSFER_TIMEOUT_S = 5.0  # a call that carries a whole document
OPEN: frozenset[State] = frozenset({"queued", "running"})

_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_encode = msgspec.json.Encoder().encode


class Upload(msgspec.Struct, frozen=True):
    """What was asked for; the file itself lies beside it."""

    filename: str  # as the caller named it, without a path; "" if it had no name
    kind: str  # a name in document_formats.kinds
    encoding: str
    mark: str  # byte order mark, hexadecimal
    names: list[str]  # columns of CSV, fields of JSON Lines
    model: str
    source: str
    target: str
    size: int  # bytes
    weight: float = 1.0  # of its tenant, when it was taken
    tenant_cap: int | None = None  # likewise


class Flaw(msgspec.Struct, frozen=True):
    """A text that stayed as it was, and why."""

    line: int
    code: str
    detail: str


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a document ended. ``error`` says why none of it could be translated."""

    failed: int = 0
    encoding: str = ""  # of the result: the upload's, or UTF-8 where that lacks characters
    flaws: list[Flaw] = []  # the first ``MAX_REPORTED``
    error: Flaw | None = None  # line 0: none in particular


class Document(msgspec.Struct, frozen=True):
    """A document as it stands. Times are milliseconds of Redis TIME."""

    id: str
    tenant: str
    upload: Upload
    state: State
    total: int  # texts to translate, as counted at the door
    done: int
    attempts: int  # runs that were begun and neither ended nor handed back
    created_ms: int
    deadline_ms: int
    expires_ms: int
    now_ms: int
    ending: Ending | None = None

    @property
    def finished(self) -> bool:
        return self.state in TERMINAL


Part = list[tuple[str | None, str, str]]  # text, or None with code and detail of the failure
_decode_upload = msgspec.json.Decoder(Upload).decode
_decode_ending = msgspec.json.Decoder(Ending).decode
_decode_part = msgspec.json.Decoder(Part).decode


@dataclass(frozen=True)
class _Keys:
    """The keys of one document; they share its shard's cluster slot."""

    state: str
    source: str
    requests: str  # hash: digest of a batch of texts → the request that translates it
    parts: str  # hash: digest of a batch of texts → its outcomes
    result: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.state, self.source, self.requests, self.parts, self.result)


class Documents:
    """The documents in Redis. Every method raises BrokerUnavailable or BrokerMisconfigured; what
    takes an id answers None (or False) for unknown, malformed and foreign ones alike."""

    def __init__(self, broker: BrokerSettings, settings: DocumentSettings) -> None:
        self._shards = shard_keys(broker.shards)
        self._settings = settings
        self._client: Any = connect_async(broker, max(TRANSFER_TIMEOUT_S, broker.redis_timeout_s))

    async def close(self) -> None:
        await self._client.aclose()

    # ── The API's side ───────────────────────────────────────────────────────────────────────

    def new_id(self) -> str:
        return new_request_id(secrets.randbelow(len(self._shards)))

    async def create(
        self, tenant: str, document_id: str, upload: Upload, body: bytes, total: int
    ) -> None:
        """Stores an upload, to be translated."""
        keys = self._expect(tenant, document_id)
        fields = {
            "upload": _encode(upload),
            "state": "queued",
            "total": total,
            "done": 0,
            "attempts": 0,
        }

        def store(pipe: Any) -> None:
            pipe.hset(keys.state, mapping=fields)
            pipe.expire(keys.state, self._lifetime_s())
            pipe.set(keys.source, body, ex=self._lifetime_s())
            # The server's clock, by way of a key: a cluster has no clock of its own.
            pipe.pexpiretime(keys.state)

        expires = (await self._together(store))[-1]
        now = int(expires) - self._lifetime_s() * 1000
        deadline = now + int(self._settings.document_deadline_s * 1000)
        times = {"created_ms": now, "deadline_ms": deadline}
        await self._together(lambda pipe: pipe.hset(keys.state, mapping=times))

    async def read(self, tenant: str, document_id: str) -> Document | None:
        keys = self._keys(tenant, document_id)
        if keys is None:
            return None

        def look(pipe: Any) -> None:
            pipe.hgetall(keys.state)
            pipe.pexpiretime(keys.state)
            pipe.pttl(keys.state)

        fields, expires, left = await self._together(look)
        if b"deadline_ms" not in fields:
            return None
        ending = fields.get(b"ending")
        return Document(
            id=document_id,
            tenant=tenant,
            upload=_decode_upload(fields[b"upload"]),
            state=fields[b"state"].decode(),
            total=int(fields[b"total"]),
            done=int(fields[b"done"]),
            attempts=int(fields[b"attempts"]),
            created_ms=int(fields[b"created_ms"]),
            deadline_ms=int(fields[b"deadline_ms"]),
            expires_ms=int(expires),
            now_ms=int(expires) - int(left),
            ending=_decode_ending(ending) if ending else None,
        )

    async def result(self, tenant: str, document_id: str) -> bytes | None:
        keys = self._keys(tenant, document_id)
        return await self._get(keys.result) if keys else None

    async def cancel(self, tenant: str, document_id: str) -> list[str] | None:
        """Ends an open document and drops its texts. Answers the requests that were submitted for
        it, which the caller cancels; None if it was not open."""
        keys = self._keys(tenant, document_id)
        if keys is None:
            return None

        def end(pipe: Any) -> None:
            pipe.hset(keys.state, "state", "cancelled")
            pipe.expire(keys.state, self._settings.document_ttl_s)
            pipe.hvals(keys.requests)
            pipe.delete(keys.source, keys.requests, keys.parts)

        answers = await self._change(keys, OPEN, end)
        return None if answers is None else [request.decode() for request in answers[2]]

    async def delete(self, tenant: str, document_id: str) -> bool:
        """Drops all there is of a document; whether there was any."""
        keys = self._keys(tenant, document_id)
        if keys is None:
            return False
        (dropped,) = await self._together(lambda pipe: pipe.delete(*keys.all))
        return bool(dropped)

    # ── The document worker's side ───────────────────────────────────────────────────────────

    async def begin(self, tenant: str, document_id: str) -> Document | None:
        """Marks an open document running and counts the attempt; None if it is not open."""
        keys = self._keys(tenant, document_id)
        if keys is None:
            return None

        def mark(pipe: Any) -> None:
            pipe.hset(keys.state, "state", "running")
            pipe.hincrby(keys.state, "attempts", 1)

        if await self._change(keys, OPEN, mark) is None:
            return None
        return await self.read(tenant, document_id)

    async def hand_back(self, tenant: str, document_id: str) -> None:
        """A run stopped on purpose: its attempt does not count."""
        keys = self._expect(tenant, document_id)
        await self._change(keys, OPEN, lambda pipe: pipe.hincrby(keys.state, "attempts", -1))

    async def source(self, tenant: str, document_id: str) -> bytes | None:
        keys = self._keys(tenant, document_id)
        return await self._get(keys.source) if keys else None

    async def progress(self, tenant: str, document_id: str, done: int, total: int) -> bool:
        """Notes how many texts have ended; False if the document is no longer open."""
        keys = self._expect(tenant, document_id)
        fields = {"done": done, "total": total}
        noted = await self._change(keys, OPEN, lambda pipe: pipe.hset(keys.state, mapping=fields))
        return noted is not None

    async def remember(self, tenant: str, document_id: str, digest: str, request: str) -> str:
        """The request that translates a batch of texts: the one remembered from an earlier run, or
        ``request`` from now on. An empty string if the document is no longer open."""
        keys = self._expect(tenant, document_id)

        def note(pipe: Any) -> None:
            pipe.hsetnx(keys.requests, digest, request)
            pipe.hget(keys.requests, digest)
            pipe.expire(keys.requests, self._lifetime_s())

        answers = await self._change(keys, OPEN, note)
        return answers[1].decode() if answers else ""

    async def parts(self, tenant: str, document_id: str) -> dict[str, Part]:
        """What earlier runs have finished, by digest."""
        keys = self._expect(tenant, document_id)
        (found,) = await self._together(lambda pipe: pipe.hgetall(keys.parts))
        return {
            digest.decode(): _decode_part(zlib.decompress(part)) for digest, part in found.items()
        }

    async def keep(self, tenant: str, document_id: str, digest: str, part: Part) -> None:
        """Keeps the outcomes of a batch for longer than its request does."""
        keys = self._expect(tenant, document_id)
        packed = zlib.compress(_encode(part), 1)

        def store(pipe: Any) -> None:
            pipe.hset(keys.parts, digest, packed)
            pipe.expire(keys.parts, self._lifetime_s())

        await self._change(keys, OPEN, store)

    async def finish(
        self, tenant: str, document_id: str, state: State, done: int, ending: Ending, body: bytes
    ) -> bool:
        """Ends an open document with its result; False if it was cancelled before."""
        keys = self._expect(tenant, document_id)
        ttl_s = self._settings.document_ttl_s
        fields = {"state": state, "done": done, "ending": _encode(ending)}

        def end(pipe: Any) -> None:
            pipe.hset(keys.state, mapping=fields)
            pipe.expire(keys.state, ttl_s)
            if state == "done":
                pipe.set(keys.result, body, ex=ttl_s)
            pipe.delete(keys.source, keys.requests, keys.parts)

        return await self._change(keys, OPEN, end) is not None

    # ── Inside ───────────────────────────────────────────────────────────────────────────────

    async def _change(
        self, keys: _Keys, states: Collection[State], change: Callable[[Any], None]
    ) -> list[Any] | None:
        """Makes a change if the document is in one of the states: the answers to its commands, or
        None. Nothing is ever written for a document that is gone."""
        with reaching_redis():
            async with self._client.pipeline(transaction=True) as pipe:
                while True:
                    try:
                        await pipe.watch(keys.state)
                        state = await pipe.hget(keys.state, "state")
                        if state is None or state.decode() not in states:
                            return None
                        pipe.multi()
                        change(pipe)
                        answers: list[Any] = await pipe.execute()
                        return answers
                    except redis.WatchError:
                        continue

    async def _get(self, key: str) -> bytes | None:
        (found,) = await self._together(lambda pipe: pipe.get(key))
        return bytes(found) if found is not None else None

    async def _together(self, commands: Callable[[Any], None]) -> list[Any]:
        """The answers to commands that may run twice: a cut connection is tried once more."""
        with reaching_redis():
            try:
                return await self._transaction(commands)
            except redis.ConnectionError:
                return await self._transaction(commands)

    async def _transaction(self, commands: Callable[[Any], None]) -> list[Any]:
        async with self._client.pipeline(transaction=True) as pipe:
            commands(pipe)
            answers: list[Any] = await pipe.execute()
            return answers

    def _lifetime_s(self) -> int:
        return int(self._settings.document_deadline_s) + self._settings.document_ttl_s

    def _expect(self, tenant: str, document_id: str) -> _Keys:
        keys = self._keys(tenant, document_id)
        if keys is None:
            raise ValueError("the document id was not made by new_id")
        return keys

    def _keys(self, tenant: str, document_id: str) -> _Keys | None:
        shard = shard_of(document_id, len(self._shards))
        if shard is None or not _TENANT.fullmatch(tenant):
            return None
        name = f"dragoman:{{{self._shards[shard].tag}}}:document:{tenant}:{document_id}"
        return _Keys(name, f"{name}:source", f"{name}:requests", f"{name}:parts", f"{name}:result")
