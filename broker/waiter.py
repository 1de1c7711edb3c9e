"""How an API process learns that requests have progressed: one reply stream, one cursor, and a
sweep that finds what the news missed."""

import asyncio
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from broker.connection import connect_async, reaching_redis
from broker.errors import BrokerError, IdempotencyConflict
from broker.exchange import Exchange, packed
from broker.keys import Keys, entry_order, shard_keys
from broker.producer import Producer
from broker.wire import TERMINAL, Ending, Outcome, State, Submission

log = logging.getLogger(__name__)

BLOCK_MS = 1_000
MOST_NEWS = 256  # entries read at once
OUTCOMES = b"="  # before the id of a request whose outcomes a line tells
SWEEP_S = 2.0
QUIET_S = 3.0  # a request without news for that long is looked up by the sweep
RETRY_S = 0.1

_TERMINAL: dict[bytes, State] = {state.encode(): state for state in TERMINAL}
_decode_outcomes = msgspec.json.Decoder(dict[int, Outcome]).decode


class Watch:
    """One waiter for one request; enter it before submitting, so that no news is missed."""

    def __init__(
        self, waiter: "Waiter", tenant: str, request_id: str, submission: Submission | None
    ) -> None:
        self._watches = waiter.watches
        self._news = self._ended = self._interrupted = False
        self._turn: asyncio.Future[None] | None = None  # of whoever waits here
        self._end: tuple[State, bytes] | None = None
        self.tenant = tenant
        self.request_id = request_id
        self.submission = submission
        self.registered = self.heard = time.monotonic()

    def __enter__(self) -> "Watch":
        self._watches.setdefault(self.request_id, set()).add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        watches = self._watches[self.request_id]
        watches.discard(self)
        if not watches:
            del self._watches[self.request_id]

    async def finished(self, timeout_s: float) -> bool:
        """True once the request has ended or was lost (its view tells which); False on time-out.

        One coroutine at a time may wait, here or in ``progressed``.
        """
        return await self._reached(lambda: self._ended, timeout_s)

    async def progressed(self, timeout_s: float) -> bool:
        """True once more records have ended since the last call; False on time-out."""
        progressed = await self._reached(lambda: self._news, timeout_s)
        if not self._ended:
            self._news = False
        return progressed

    @property
    def ending(self) -> Ending | None:
        """How the request ended, if its news told all of it: then nobody needs to read it."""
        if self._end is None:
            return None
        try:
            return Ending(self._end[0], _decode_outcomes(self._end[1]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # whoever reads the request is told what is wrong with it

    def tell(self, ended: bool, end: tuple[State, bytes] | None = None) -> None:
        """Called by the waiter with news of the request; ``end`` is its state and its outcomes in
        JSON, where the news told them."""
        self._end = end or self._end
        self.heard = time.monotonic()
        self._news = True
        self._ended = self._ended or ended
        self._wake()

    def interrupt(self) -> None:
        """Ends the wait that is going on, or the next one, as if its time were over."""
        self._interrupted = True
        self._wake()

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    async def _reached(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        timer = None if reached() else loop.call_later(timeout_s, self.interrupt)
        try:
            while not reached() and not self._interrupted:
                self._turn = loop.create_future()
                await self._turn
        finally:
            self._turn, self._interrupted = None, False
            if timer:
                timer.cancel()
        return reached()


class Waiter:
    """Resolves all the waiting requests of an API process, whatever their number."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._settings = producer.settings
        self._keys = shard_keys(self._settings.shards)
        patience_s = BLOCK_MS / 1000 + self._settings.redis_timeout_s
        self._redis = Exchange(connect_async(self._settings, patience_s), patience_s)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.watches: dict[str, set[Watch]] = {}  # by request id

    async def start(self) -> None:
        """Begins to listen; Redis may still be away."""
        self._tasks = [asyncio.ensure_future(self._listen(keys)) for keys in self._keys]
        self._tasks.append(asyncio.ensure_future(self._sweep_often()))

    async def stop(self) -> None:
        """Stops listening; the reply stream expires by itself."""
        # The flag as well: a read of redis-py that ends in the same tick swallows the cancellation.
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.close()

    def watching(self, tenant: str, request_id: str, submission: Submission | None = None) -> Watch:
        """A watch to enter before the request is submitted, or before ``Producer.watch``.

        With ``submission`` the request is submitted again, under its id, if Redis loses it.
        """
        return Watch(self, tenant, request_id, submission)

    async def _listen(self, keys: Keys) -> None:
        """Follows the shard's reply stream by an explicit cursor: ``$`` would skip whatever comes
        between two reads."""
        stream, cursor, renewed = keys.reply(self._producer.process), "0", 0.0
        while not self._stopping:
            try:
                with reaching_redis():
                    if time.monotonic() - renewed > min(SWEEP_S, self._settings.reply_ttl_s / 4):
                        cursor = await self._renew(keys, cursor)
                        renewed = time.monotonic()
                    found = await self._read(stream, cursor)
                for entry, lines in found[0][1] if found else ():
                    cursor = entry.decode()
                    self._spread(lines)
                await asyncio.sleep(0)  # who was waked answers before the next read is written
            except BrokerError as error:
                log.warning("reply stream: %s", error)
                renewed = 0.0
                await asyncio.sleep(RETRY_S)

    async def _read(self, stream: str, cursor: str) -> Any:
        command = ("XREAD", "COUNT", MOST_NEWS, "BLOCK", BLOCK_MS, "STREAMS", stream, cursor)
        (answer,) = await self._redis.run([command], [packed(command)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _renew(self, keys: Keys, cursor: str) -> str:
        """Keeps the stream alive, drops what has been read, since texts are among it, and rewinds a
        cursor that is ahead of a server which has lost its newest entries."""
        last = await self._producer.listen(keys)
        if entry_order(last) < entry_order(cursor):
            return "0"
        await self._producer.forget(keys, cursor)
        return cursor

    def _spread(self, lines: dict[bytes, bytes]) -> None:
        told: dict[bytes, bytes] = {}  # outcomes, each before the line that ends their request
        for field, value in lines.items():
            if field.startswith(OUTCOMES):
                told[field[len(OUTCOMES) :]] = value
                continue
            state, outcomes = _TERMINAL.get(value.partition(b" ")[2]), told.get(field)
            for watch in self.watches.get(field.decode(), ()):
                watch.tell(state is not None, (state, outcomes) if state and outcomes else None)

    async def _sweep_often(self) -> None:
        while not self._stopping:
            await asyncio.sleep(SWEEP_S)
            try:
                await self.sweep(time.monotonic())
            except BrokerError as error:
                log.warning("sweep: %s", error)

    async def sweep(self, now: float) -> None:
        """Looks up every request that has been quiet: ends those that are over, submits again what
        Redis has lost. ``now`` is on the monotonic clock, in seconds."""
        quiet = [
            watch
            for watches in self.watches.values()
            for watch in watches
            if now - watch.heard >= QUIET_S
        ]
        for start in range(0, len(quiet), 500):
            part = quiet[start : start + 500]
            found = await asyncio.gather(
                *(self._producer.status(watch.tenant, watch.request_id) for watch in part)
            )
            lost = []
            for watch, status in zip(part, found, strict=True):
                if status is None and watch.submission is not None:
                    lost.append(self._submit_again(watch, watch.submission, now))
                elif status is None or status.finished:
                    watch.tell(ended=True)
            for error in await asyncio.gather(*lost, return_exceptions=True):
                if error:
                    raise error

    async def _submit_again(self, watch: Watch, submission: Submission, now: float) -> None:
        spent_ms = int((now - watch.registered) * 1000)
        # Its own caller waits for this id: it must not join another one now.
        again = msgspec.structs.replace(
            submission, deadline_ms=max(1, submission.deadline_ms - spent_ms), join=""
        )
        try:
            holder = (await self._producer.submit(again, refusable=False)).id
        except IdempotencyConflict:
            holder = ""
        if holder != watch.request_id:
            watch.tell(ended=True)  # its Idempotency-Key leads to what came after the loss
            return
        watch.heard = now
        log.warning("request %s was lost by Redis and is queued again", watch.request_id)
