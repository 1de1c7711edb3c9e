"""Round trips through the broker alone, without HTTP or a model: a producer and a waiter as an API
process has them, and a consumer that gives each text back at once.

    python -m benchmarks.trips --redis-url unix:///tmp/redis.sock

is that consumer; ``made`` makes the trips. ``xadd`` measures what they are compared with: the rate
at which ``redis-benchmark`` appends records to a stream, many calls in each packet.
"""

import argparse
import asyncio
import csv
import io
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from broker.consumer import Consumer
from broker.errors import BrokerError
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter
from broker.wire import Completion, Delivery, Details, Outcome, Submission, WorkerEntry
from dragoman import embedded_redis

MODEL = "trips"
READY = "trips consumer ready"
TEXT = "The first sentence of the day takes longer than all that come after it."
BATCH_RECORDS = 256  # read at once and completed at once: the most that one call completes
BATCHES_AHEAD = 2  # read and not yet completed
BLOCK_MS = 100
DEADLINE_MS = 600_000
ANSWER_S = 60.0
PIPELINE = 16  # calls in each packet of redis-benchmark
CLIENTS = 50  # its default
PROGRAMS = ("redis-benchmark", "valkey-benchmark")


@dataclass(frozen=True)
class Shape:
    """How records travel."""

    records: int  # of a request
    in_flight: int  # requests


async def made(settings: BrokerSettings, shape: Shape, seconds: float) -> tuple[int, float]:
    """Keeps requests in flight for so long; records that came back, and the time they took."""
    producer = Producer(settings, process="trips")
    waiter = Waiter(producer)
    await producer.prepare()
    await waiter.start()
    clock = asyncio.get_running_loop().time
    came_back: list[int] = []

    async def turn(end_s: float) -> None:
        while clock() < end_s:
            came_back.append(await trip(producer, waiter, shape.records))

    try:
        began_s = clock()
        await asyncio.gather(*(turn(began_s + seconds) for _ in range(shape.in_flight)))
        return sum(came_back), clock() - began_s
    finally:
        await waiter.stop()
        await producer.close()


async def trip(producer: Producer, waiter: Waiter, records: int) -> int:
    """One request from submit to its outcomes; how many of them have a text."""
    submission = Submission(
        id=producer.new_request_id(),
        tenant="default",
        model=MODEL,
        lane="interactive" if records <= 16 else "bulk",
        source="en",
        target="ja",
        ids=list(range(records)),
        texts=[TEXT] * records,
        deadline_ms=DEADLINE_MS,
    )
    with waiter.watching("default", submission.id, submission) as watch:
        await producer.submit(submission)
        if not await watch.finished(ANSWER_S):
            raise TimeoutError(f"no answer within {ANSWER_S:g} s")
        if end := watch.ending:  # the news told the outcomes, as they do for the API
            return sum(outcome.text is not None for outcome in end.outcomes.values())
    found = await producer.view("default", submission.id)
    return sum(outcome.text is not None for outcome in found[1].values()) if found else 0


class Echo:
    """A worker without sentences or an engine: what it reads, it completes with the same text, in a
    thread of its own as a worker does."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._consumer = Consumer(settings, MODEL)
        self._beat_s = settings.heartbeat_s
        self._next_beat_s = 0.0
        self._writer = ThreadPoolExecutor(1)
        self._written: deque[Future[int]] = deque()
        self.stopping = False

    def serve(self) -> None:
        self._consumer.prepare()
        self._beat()
        print(READY, flush=True)
        with self._writer:
            while not self.stopping:
                self._beat()
                self._turn()
            self._wait(0)
        self._consumer.retire()
        self._consumer.close()

    def stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _turn(self) -> None:
        taken = self._consumer.read(BATCH_RECORDS, BATCH_RECORDS, BLOCK_MS)
        if not taken:
            return
        self._consumer.begin(taken)
        self._written.append(self._writer.submit(self._complete, taken))
        self._wait(BATCHES_AHEAD)

    def _wait(self, most: int) -> None:
        while len(self._written) > most:
            self._written.popleft().result()

    def _complete(self, taken: Sequence[Delivery]) -> int:
        details = Details(model=MODEL, worker=self._consumer.worker, sentences=1)
        return self._consumer.complete(
            [Completion(one, Outcome(text=one.record.text, details=details)) for one in taken]
        )

    def _beat(self) -> None:
        """As often as a worker: it also tells the broker how much to keep ready."""
        if (now_s := time.monotonic()) < self._next_beat_s:
            return
        self._next_beat_s = now_s + self._beat_s
        entry = WorkerEntry(
            id=self._consumer.worker,
            model=MODEL,
            device="none",
            engine="echo",
            slots=BATCH_RECORDS,
            rate=0.0,
            completed=0,
            started_ms=0,
            seen_ms=0,
        )
        self._consumer.heartbeat(entry, BATCH_RECORDS)


@dataclass(frozen=True)
class Appends:
    """How fast a server appends to a stream."""

    client: str
    rate: float  # a second


def xadd(folder: Path, record_bytes: int, count: int) -> Appends:
    """``count`` calls of XADD, ``PIPELINE`` in each packet, by redis-benchmark if it is installed
    and else by a client of our own that sends the same bytes."""
    path, payload = folder / "redis.sock", "x" * record_bytes
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        return Appends(
            "own pipelined client (no redis-benchmark here)", _own(path, payload.encode(), count)
        )
    load = ["-n", str(count), "-P", str(PIPELINE), "-c", str(CLIENTS), "--csv"]
    command = ["XADD", "benchmark:stream", "*", "record", payload]
    argv = [program, "-s", str(path), *load, *command]
    answer = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rows = list(csv.DictReader(io.StringIO(answer)))
    return Appends(Path(program).name, float(rows[0]["rps"]))


def _own(path: Path, payload: bytes, count: int) -> float:
    parts = (b"XADD", b"benchmark:stream", b"*", b"record", payload)
    one = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts)
    packets = -(-count // (PIPELINE * CLIENTS))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        began_s = time.perf_counter()
        for _ in range(packets):  # as much in flight as redis-benchmark has
            connection.sendall(one * PIPELINE * CLIENTS)
            lines = 0
            while lines < 2 * PIPELINE * CLIENTS:
                lines += connection.recv(1 << 16).count(b"\n")
        return packets * PIPELINE * CLIENTS / (time.perf_counter() - began_s)


def settings_of(folder: Path) -> BrokerSettings:
    return BrokerSettings(redis_url=embedded_redis.redis_url(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.trips", description=__doc__)
    parser.add_argument("--redis-url", required=True)
    options = parser.parse_args(arguments)
    echo = Echo(BrokerSettings(redis_url=options.redis_url))
    signal.signal(signal.SIGTERM, echo.stop)
    try:
        echo.serve()
    except BrokerError as error:
        print(f"trips: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
