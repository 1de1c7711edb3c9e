"""Three times more work than the service can do, for a minute, and what becomes of it.

    python -m benchmarks.overload [--seconds 60] [--factor 3] [--deadline-s 5]

Real Valkey, API and worker processes over HTTP. First the capacity is measured: as many connections
as keep the workers full, each sending the next sentence after the answer. Then sentences come at
random, on average ``--factor`` times as fast as that, whatever becomes of the earlier ones; each
allows ``--deadline-s``. Before and after, a few come, to see how long they take. Told are:

- goodput: answers in time, against capacity; what was refused, how, and how fast;
- whether what was accepted kept its deadline;
- how much of the processors each process takes, this client included: on a machine without one to
  spare, what refusing costs is gone from the capacity;
- memory of Valkey and of every process, over time. Results are kept for ``--result-ttl-s`` only, so
  that it can be seen where Valkey's memory ends to grow;
- how many seconds after the end latency is what it was before.
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import load, report, requests, stress
from benchmarks.fleet import Engine, Fleet, fleet
from benchmarks.servers import NotStarted, stop_in_order_when_terminated
from broker.connection import connect
from broker.producer import Producer

SECONDS, FACTOR, DEADLINE_S, RESULT_TTL_S = 60.0, 3.0, 5.0, 15
BATCH_S, SLOTS, REAL_SLOTS, WORKERS, API_PROCESSES = 0.5, 8, 32, 2, 1
CAPACITY_S, CALM_S, AFTER_S = 10.0, 5.0, 20.0
CALM_SHARE = 0.1  # of the capacity, before and after
ANSWER_S = 2.0  # what an answer may take beyond the deadline before the client gives up
SAMPLE_S = 1.0
MIB = 1 << 20
MODEL = "small"


@dataclass(frozen=True)
class Answer:
    """One request: when it was due, how long its answer took from then, and what it was."""

    due_s: float
    latency_s: float
    kind: str  # "text", a problem's code, or what went wrong with the connection

    @property
    def ended_s(self) -> float:
        return self.due_s + self.latency_s


@dataclass(frozen=True)
class Sample:
    """The service at one moment of the overload. Memory is in bytes."""

    at_s: float
    outstanding: int  # characters
    used_memory: int  # as Valkey counts it
    resident: dict[str, int]


@dataclass
class Run:
    """Everything that was seen; times are those of the event loop."""

    capacity: float = 0.0  # sentences a second
    began_s: float = 0.0  # of the overload
    ended_s: float = 0.0
    before: list[Answer] = field(default_factory=list)
    during: list[Answer] = field(default_factory=list)
    after: list[Answer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    # How many each process had in use, by phase.
    processors: dict[str, dict[str, float]] = field(default_factory=dict)


class Use:
    """What the service and this client take of the processors from when it is made."""

    def __init__(self, service: Fleet) -> None:
        self._service = service
        self._began_s, self._before_s = time.monotonic(), self._spent_s()

    def _spent_s(self) -> dict[str, float]:
        return {**self._service.cpu_s(), "client": time.process_time()}

    def processors(self) -> dict[str, float]:
        """How many each process had in use on average."""
        passed_s, spent_s = time.monotonic() - self._began_s, self._spent_s()
        return {name: (s - self._before_s[name]) / passed_s for name, s in spent_s.items()}


class Client:
    """Sends sentences of which none comes twice, over connections that are kept."""

    def __init__(self, where: load.Address, deadline_s: float) -> None:
        self._where = where
        self._deadline_s = deadline_s
        self._idle: list[load.Connection] = []
        sentences = requests.sentences()
        self._texts = (f"{text} {n}" for n, text in enumerate(itertools.cycle(sentences)))

    def _raw(self) -> bytes:
        records = [{"id": 0, "text": next(self._texts)}]
        payload = {"fromLang": requests.SOURCE, "toLang": requests.TARGET, "records": records}
        raw = load.message("POST", "/translation", {"payload": payload})
        header = f"\r\nX-Deadline-Ms: {int(self._deadline_s * 1000)}\r\n".encode()
        return raw.replace(b"\r\n", header, 1)

    async def send(self, due_s: float) -> Answer:
        clock = asyncio.get_running_loop().time
        connection: load.Connection | None = None
        try:
            async with asyncio.timeout_at(due_s + self._deadline_s + ANSWER_S):
                connection = self._idle.pop() if self._idle else None
                connection = connection or await load.Connection.open(self._where)
                kind = _kind(*await connection.exchange(self._raw()))
            self._idle.append(connection)
            connection = None
        except TimeoutError:
            kind = load.TIMED_OUT
        except (OSError, EOFError, ValueError) as error:
            kind = f"connection: {type(error).__name__}"
        finally:
            if connection is not None:
                connection.close()
        return Answer(due_s, clock() - due_s, kind)

    async def pour(self, rate: float, seconds: float) -> list[Answer]:
        """Open loop: independent arrivals, ``rate`` a second on average."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        sent = []
        for at_s in arrivals(rate, seconds):
            await asyncio.sleep(max(0.0, began_s + at_s - clock()))
            sent.append(asyncio.create_task(self.send(began_s + at_s)))
        return await asyncio.gather(*sent)

    async def press(self, connections: int, seconds: float) -> float:
        """Closed loop: texts a second in the second half of the time."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        ended: list[float] = []

        async def turn() -> None:
            while clock() < began_s + seconds:
                if (await self.send(clock())).kind == "text":
                    ended.append(clock())

        await asyncio.gather(*(turn() for _ in range(connections)))
        half_s = seconds / 2
        return sum(half_s < end_s - began_s <= seconds for end_s in ended) / half_s

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


def _kind(status: int, body: bytes) -> str:
    answer = json.loads(body)
    if status == 200:
        return "text"
    return str(answer.get("code", f"status {status}"))


def arrivals(rate: float, seconds: float) -> Iterator[float]:
    """Seconds from the start at which independent requests come; the same for the same figures."""
    rng, at_s = random.Random(int(rate * seconds)), 0.0
    while (at_s := at_s + rng.expovariate(rate)) < seconds:
        yield at_s


async def overloaded(service: Fleet, engine: Engine, options: argparse.Namespace) -> Run:
    clock = asyncio.get_running_loop().time
    where = load.address(service.url)
    await stress.warm_up(where)
    run = Run()
    slots = (engine.slots or REAL_SLOTS) * options.workers
    eager = Client(where, options.deadline_s * 4)
    use = Use(service)
    run.capacity = await eager.press(3 * slots, CAPACITY_S)
    run.processors["capacity"] = use.processors()
    eager.close()
    if not run.capacity:
        raise NotStarted("nothing was translated while the capacity was measured")
    client = Client(where, options.deadline_s)
    calm = CALM_SHARE * run.capacity
    run.before = await client.pour(calm, CALM_S)
    watching = asyncio.create_task(_watch(service, run.samples, clock()))
    run.began_s = clock()
    use = Use(service)
    pouring = asyncio.create_task(client.pour(options.factor * run.capacity, options.seconds))
    await asyncio.sleep(options.seconds)
    run.processors["overload"] = use.processors()
    run.ended_s = clock()
    run.after = await client.pour(calm, AFTER_S)
    run.during = await pouring
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    client.close()
    return run


async def _watch(service: Fleet, samples: list[Sample], began_s: float) -> None:
    clock = asyncio.get_running_loop().time
    producer = Producer(service.settings, "overload")
    redis: Any = connect(service.settings)
    try:
        while True:
            outstanding = (await producer.load(MODEL)).outstanding_cost
            used, resident = await asyncio.to_thread(
                lambda: (redis.info("memory")["used_memory"], service.resident_bytes())
            )
            samples.append(Sample(clock() - began_s, outstanding, used, resident))
            await asyncio.sleep(SAMPLE_S)
    finally:
        redis.close()
        await producer.close()


def recovered_s(run: Run) -> float:
    """Seconds after the end from which on every request takes no longer than twice the slowest one
    before it."""
    usual_s = 2 * max(answer.latency_s for answer in run.before if answer.kind == "text")
    slow = [a.due_s for a in run.after if a.kind != "text" or a.latency_s > usual_s]
    return max(0.0, max(slow, default=run.ended_s) - run.ended_s)


def _spread(latencies_s: Sequence[float]) -> list[str]:
    if not latencies_s:
        return ["–"] * 4
    ordered = sorted(latencies_s)
    return [
        *(report.shown(load.quantile(ordered, share)) for share in (0.5, 0.95, 0.99)),
        report.shown(ordered[-1]),
    ]


def outcome_rows(run: Run) -> list[list[str]]:
    kinds = Counter(answer.kind for answer in run.during)
    total = len(run.during)
    rows = []
    for kind, count in kinds.most_common():
        latencies_s = [answer.latency_s for answer in run.during if answer.kind == kind]
        rows.append([kind, str(count), f"{100 * count / total:.1f}%", *_spread(latencies_s)])
    return rows


def memory_rows(run: Run, seconds: float) -> list[list[str]]:
    """A row a sixth of the overload, and one after it."""
    moments = [seconds * part / 6 for part in range(7)] + [run.samples[-1].at_s]
    rows = []
    for moment in moments:
        sample = min(run.samples, key=lambda one: abs(one.at_s - moment))
        rows.append(
            [
                f"{sample.at_s:.0f} s",
                f"{sample.outstanding:,}",
                f"{sample.used_memory / MIB:.1f}",
                *(f"{taken / MIB:.0f}" for taken in sample.resident.values()),
            ]
        )
    return rows


def told(run: Run, engine: Engine, options: argparse.Namespace, machine: str) -> str:
    """The report in Markdown."""
    texts = [answer for answer in run.during if answer.kind == "text"]
    # What ends within the deadline's time of the start was not yet work under full load.
    steady = [a for a in texts if run.began_s + options.deadline_s < a.ended_s <= run.ended_s]
    goodput = sum(a.latency_s <= options.deadline_s for a in steady) / (
        options.seconds - options.deadline_s
    )
    refused = [a for a in run.during if a.kind in ("too_late", "overloaded", "tenant_overloaded")]
    accepted = len(run.during) - len(refused)
    kept = sum(answer.latency_s <= options.deadline_s for answer in texts)
    before_s = sorted(answer.latency_s for answer in run.before)
    facts = [
        ["capacity", f"{run.capacity:.1f} sentences/s"],
        ["came", f"{len(run.during) / options.seconds:.1f} /s"],
        ["answered in time", f"{goodput:.1f} /s, {100 * goodput / run.capacity:.0f}% of capacity"],
        ["refused", f"{100 * len(refused) / len(run.during):.1f}%"],
        ["accepted, and in time", f"{kept} of {accepted} ({100 * kept / max(1, accepted):.2f}%)"],
        ["p95 before", f"{load.quantile(before_s, 0.95):.3f} s"],
        ["latency as before", f"{recovered_s(run):.1f} s after the end"],
    ]
    outcomes = ("answer", "requests", "share", "p50", "p95", "p99", "max")
    memory = ("at", "characters outstanding", "Valkey used MiB")
    taken = [[phase, *(f"{n:.2f}" for n in use.values())] for phase, use in run.processors.items()]
    servers = [f"{name} RSS MiB" for name in run.samples[0].resident]
    return (
        f"{options.seconds:g} s of {options.factor:g} times the capacity, one sentence a request,"
        f" deadline {options.deadline_s:g} s; {options.workers} workers ({engine.name}),"
        f" {options.api_processes} API process(es), results kept for {options.result_ttl_s} s.\n\n"
        f"{report.table(('', ''), facts)}\n\n"
        f"{report.table(outcomes, outcome_rows(run))}\n\nSeconds from when a request was due.\n\n"
        f"{report.table(('processors in use', *run.processors['overload']), taken)}\n\n"
        f"{report.table((*memory, *servers), memory_rows(run, options.seconds))}\n\n{machine}.\n"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.overload",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=SECONDS, help="how long the overload lasts")
    add("--factor", type=float, default=FACTOR, help="times the capacity")
    add("--deadline-s", type=float, default=DEADLINE_S, help="what each request allows")
    add("--engine", choices=("paced", "real"), default="paced", help="waits, or the bundled model")
    add("--batch-s", type=float, default=BATCH_S, help="how long a batch of the paced engine takes")
    add("--workers", type=int, default=WORKERS, help="worker processes")
    add("--api-processes", type=int, default=API_PROCESSES, help="API processes")
    add("--result-ttl-s", type=int, default=RESULT_TTL_S, help="how long results are kept")
    add("--out", type=Path, default=Path("runs/overload"), help="folder of the report")
    options = parser.parse_args(arguments)
    if not 10 <= options.seconds <= 3_600 or not 1 <= options.factor <= 20:
        parser.error("--seconds must be between 10 and 3600, --factor between 1 and 20")
    if not 0 < options.deadline_s <= options.seconds / 2:
        parser.error("--deadline-s must be above 0 and at most half of --seconds")
    if min(options.workers, options.api_processes, options.result_ttl_s) < 1:
        parser.error("--workers, --api-processes and --result-ttl-s must be at least 1")
    if options.batch_s <= 0:
        parser.error("--batch-s must be above 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    stop_in_order_when_terminated()
    paced = options.engine == "paced"
    engine = Engine(options.batch_s if paced else 0.0, SLOTS if paced else REAL_SLOTS)
    environ = {"DRAGOMAN_RESULT_TTL_S": str(options.result_ttl_s)}
    machine = report.machine()
    try:
        with fleet(
            engine, options.workers, api_processes=options.api_processes, environ=environ
        ) as service:
            run = uvloop.run(overloaded(service, engine, options))
    except NotStarted as error:
        print(f"overload: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    text = told(run, engine, options, machine)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "overload.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
