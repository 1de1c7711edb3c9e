"""The API tier's side of the broker: submitting requests, reading their state, cancelling them."""

import asyncio
import secrets
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from broker import admission, answers, functions
from broker.coalescer import Coalescer
from broker.connection import connect_async, reaching_redis
from broker.errors import BrokerUnavailable
from broker.keys import Keys, entry_order, new_request_id, shard_keys, shard_of
from broker.settings import BrokerSettings
from broker.wire import (
    LANES,
    Load,
    ModelEntry,
    Outcome,
    Receipt,
    RequestStatus,
    Submission,
    WorkerEntry,
)

MOST_JOINS = 3  # identical requests that end while they are being joined, before we give up
ABANDON_S = 30.0  # how long a request that nobody waits for is kept running


class Producer:
    """Submits requests and follows them. One per API process; safe for any number of tasks.

    ``process`` names the reply stream that this process reads. Every method raises
    BrokerUnavailable when Redis has not answered for ``redis_timeout_s``, and BrokerMisconfigured
    when it cannot serve us as it is set up.
    """

    def __init__(self, settings: BrokerSettings, process: str) -> None:
        self.settings = settings
        self.process = process
        self._keys = shard_keys(settings.shards)
        self._redis = Coalescer(connect_async(settings), settings.redis_timeout_s)
        self._timers: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Checks the server and loads the functions where this user may."""
        await asyncio.to_thread(functions.init, self.settings)

    async def ready(self) -> None:
        """Returns if Redis is reachable and the functions are loaded."""
        for keys in self._keys:
            await self._call("watch", [keys.request("", ""), keys.load()], ["", ""])

    def new_request_id(self, lead: str = "") -> str:
        """An id whose shard is random, or decided by the digest by which later requests must find
        this one: that of its Idempotency-Key or of its work."""
        shards = self.settings.shards
        if lead:
            return new_request_id(zlib.crc32(lead.encode()) % shards)
        return new_request_id(secrets.randbelow(shards))

    async def submit(self, submission: Submission, *, refusable: bool = True) -> Receipt:
        """Queues all records of a request, or none of them.

        With ``join``, work of the same name in flight is joined instead: then whoever leaves must
        ``leave`` that request. Safe to call again with the same id after any error: what was queued
        stays queued once. Raises Overloaded (TenantOverloaded, TooLate) unless the work was
        accepted before and is not ``refusable`` any more, and IdempotencyConflict.
        """
        receipt = await self._submit(submission, "", refusable)
        for _ in range(MOST_JOINS):
            if not receipt.joined or await self._join(submission, receipt.id):
                return receipt
            receipt = await self._submit(submission, receipt.id, refusable)
        return await self._submit(msgspec.structs.replace(submission, join=""), "", refusable)

    async def _submit(self, submission: Submission, over: str, refusable: bool) -> Receipt:
        """``over``: a request that cannot be joined any more; its mark is taken over."""
        keys = self._shard(submission.id)
        if keys is None:
            raise ValueError("the request id was not made by new_request_id")
        now = datetime.now(UTC)
        told = admission.arguments(submission, self.settings, self.process, over, refusable, now)
        answer = await self._call("submit", admission.names(submission, keys, now), told)
        return admission.receipt(submission, answer)

    async def _join(self, submission: Submission, request_id: str) -> bool:
        """Counts this caller in, unless the request has ended meanwhile. A call that ran twice
        would only keep the work going when nobody wants it any more."""
        keys = self._shard(request_id)
        if keys is None:
            return False
        arguments = [self.process, submission.deadline_ms, self.settings.result_ttl_s * 1000]
        name = keys.request(submission.tenant, request_id)
        return bool(await self._call("join", [name], arguments))

    async def watch(self, tenant: str, request_id: str) -> RequestStatus | None:
        """The request's status; from now on its news reaches this process's waiter too.

        None for unknown, malformed and foreign ids alike.
        """
        found = await self._read(tenant, request_id, self.process, "")
        return found and found[0]

    async def status(self, tenant: str, request_id: str) -> RequestStatus | None:
        """The request's status, or None."""
        found = await self._read(tenant, request_id, "", "")
        return found and found[0]

    async def view(
        self, tenant: str, request_id: str
    ) -> tuple[RequestStatus, dict[int, Outcome]] | None:
        """The request's status and its outcomes so far by record index, read at one instant; the
        wait is the request's own, by its place in the fair queue."""
        found = await self._read(tenant, request_id, "", "results")
        keys = self._shard(request_id)
        if found is None or found[0].finished or keys is None:
            return found
        status = found[0]
        names = [
            keys.request(tenant, request_id),
            keys.load(),
            keys.backlog(status.model, status.lane),
            keys.queue(status.model, status.lane),
        ]
        wait_s = answers.number(await self._call("wait", names))
        return msgspec.structs.replace(status, estimated_wait_s=wait_s), found[1]

    async def _read(
        self, tenant: str, request_id: str, process: str, results: str
    ) -> tuple[RequestStatus, dict[int, Outcome]] | None:
        keys = self._shard(request_id)
        if keys is None:
            return None
        names = [keys.request(tenant, request_id), keys.load()]
        answer = await self._call("watch", names, [process, results])
        if answer is None:
            return None
        return answers.view(tenant, request_id, answer)

    async def outcomes(
        self, tenant: str, request_id: str, indexes: Sequence[int]
    ) -> dict[int, Outcome]:
        """Those of the outcomes at ``indexes`` that there are."""
        keys = self._shard(request_id)
        if keys is None or not indexes:
            return {}
        with reaching_redis():
            values = await self._redis.execute("HMGET", keys.request(tenant, request_id), *indexes)
        return {
            index: answers.outcome(request_id, index, value)
            for index, value in zip(indexes, values, strict=True)
            if value is not None
        }

    async def keep(self, tenant: str, request_id: str) -> None:
        """A Location was given: the request is never cancelled for lack of waiters."""
        keys = self._shard(request_id)
        if keys is not None:
            await self._call("keep", [keys.request(tenant, request_id)])

    async def leave(self, tenant: str, request_id: str) -> None:
        """A caller went away. If nobody waits ``ABANDON_S`` later and the request is not kept, it
        is cancelled; if this process dies before, the work simply goes on."""
        keys = self._shard(request_id)
        if keys is None:
            return
        waiters = await self._call("leave", [keys.request(tenant, request_id)], retry=False)
        if int(waiters) <= 0:
            timer = asyncio.ensure_future(self._abandon(tenant, request_id))
            self._timers.add(timer)
            timer.add_done_callback(self._timers.discard)

    async def _abandon(self, tenant: str, request_id: str) -> None:
        await asyncio.sleep(ABANDON_S + 0.05)
        try:
            await self._cancel(tenant, request_id, patience_ms=int(ABANDON_S * 1000))
        except BrokerUnavailable:
            return  # the work goes on, as it does when this process dies

    async def cancel(self, tenant: str, request_id: str) -> RequestStatus | None:
        """Cancels the request at once, unless it has ended; its status afterwards, or None."""
        await self._cancel(tenant, request_id, patience_ms=None)
        return await self.status(tenant, request_id)

    async def _cancel(self, tenant: str, request_id: str, patience_ms: int | None) -> bool:
        keys = self._shard(request_id)
        if keys is None:
            return False
        request = keys.request(tenant, request_id)
        with reaching_redis():
            fields = await self._redis.execute(
                "HMGET", request, "model", "lane", "idempotency", "watchers"
            )
        if fields[0] is None:
            return False
        model, lane, digest, watchers = (field.decode() for field in fields)
        processes = watchers.split()
        names = [
            request,
            keys.load(),
            keys.backlog(model, lane),
            keys.queue(model, lane),
            keys.idempotency(tenant, digest),
            *(keys.reply(process) for process in processes),
        ]
        patience = "" if patience_ms is None else patience_ms
        arguments = [request_id, tenant, self.settings.result_ttl_s * 1000, patience, *processes]
        cancelled, news = await self._call("cancel", names, arguments)
        for process, line in zip(news[::2], news[1::2], strict=True):
            with reaching_redis():
                await self._redis.execute(
                    "XADD", keys.reply(process.decode()), "NOMKSTREAM", "*", *line
                )
        return bool(cancelled)

    async def model(self, name: str) -> ModelEntry | None:
        """What workers announced about a model; None if none ever did."""
        with reaching_redis():
            fields = await self._redis.execute("HGETALL", self._keys[0].model(name))
        return answers.model(name, fields) if fields else None

    async def workers(self, model: str) -> list[WorkerEntry]:
        """The live workers of a model, by id."""
        with reaching_redis():
            register = await self._redis.execute("HGET", self._keys[0].load(), f"workers:{model}")
            ids = sorted(msgspec.json.decode(register)) if register else []
            entries = await asyncio.gather(
                *(self._redis.execute("HGETALL", self._keys[0].worker(id)) for id in ids)
            )
        return [
            answers.worker(id, fields) for id, fields in zip(ids, entries, strict=True) if fields
        ]

    async def load(self, model: str) -> Load:
        """Outstanding work of a model over all shards."""
        with reaching_redis():
            shards = await asyncio.gather(*(self._load(keys, model) for keys in self._keys))
            workers = len(await self.workers(model))
        return answers.total(shards, workers)

    async def _load(self, keys: Keys, model: str) -> Load:
        fields = [f"rate:{model}", f"cost:{model}", *(f"cost:{model}:{lane}" for lane in LANES)]
        (rate, *costs), dead_letters, *lengths = await asyncio.gather(
            self._redis.execute("HMGET", keys.load(), *fields),
            self._redis.execute("XLEN", keys.dead()),
            *(self._redis.execute("XLEN", keys.queue(model, lane)) for lane in LANES),
            *(self._redis.execute("ZCARD", keys.backlog(model, lane)) for lane in LANES),
        )
        return answers.load(costs, rate, lengths, dead_letters)

    async def listen(self, keys: Keys) -> str:
        """Makes or renews this process's reply stream in a shard; the id of its last entry."""
        names, ttl_s = [keys.reply(self.process)], self.settings.reply_ttl_s
        last: bytes = await self._call("listen", names, [ttl_s])
        return last.decode()

    async def forget(self, keys: Keys, cursor: str) -> None:
        """Drops the news of this process up to the entry ``cursor``, which it has read."""
        milliseconds, number = entry_order(cursor)
        after = f"{milliseconds}-{number + 1}"
        with reaching_redis():
            await self._redis.execute("XTRIM", keys.reply(self.process), "MINID", after)

    async def close(self) -> None:
        """Closes the connections; what was submitted goes on."""
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        await self._redis.close()

    def _shard(self, request_id: str) -> Keys | None:
        shard = shard_of(request_id, self.settings.shards)
        return None if shard is None else self._keys[shard]

    async def _call(
        self, short: str, keys: Sequence[str], arguments: Sequence[Any] = (), retry: bool = True
    ) -> Any:
        return await functions.call_together(
            self._redis, self.settings, short, keys, arguments, retry
        )
