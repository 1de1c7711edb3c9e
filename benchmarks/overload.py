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
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import uvloop

from benchmarks import load, report, stacks
from benchmarks.requests import sentences, translation, warm_up, wrong
from benchmarks.servers import NotStarted
from benchmarks.stacks import Engine, Stack
from broker.connection import connect
from broker.producer import Producer

SECONDS, FACTOR, DEADLINE_S, RESULT_TTL_S = 60.0, 3.0, 5.0, 15
BATCH_S, SLOTS, REAL_SLOTS, WORKERS, API_PROCESSES = 0.5, 8, 16, 2, 1
CAPACITY_S, CALM_S, AFTER_S = 10.0, 5.0, 20.0
CALM_SHARE = 0.1  # of the capacity, before and after
ANSWER_S = 2.0  # what an answer may take beyond the deadline before the client gives up
KEPT = 1_000  # connections
REFUSALS = ("too_late", "overloaded", "tenant_overloaded")
SAMPLE_S = 1.0
MIB = 1 << 20
MODEL = "small"


@dataclass(frozen=True)
class Sample:
    """The service at one moment of the overload. Memory is in bytes."""

    at_s: float
    outstanding: int  # characters
    used_memory: int  # as Valkey counts it
    resident: dict[str, int]


@dataclass
class Run:
    """Everything that was seen. An answer's ``failure`` is a problem's code, or what went wrong
    with the connection."""

    capacity: float = 0.0  # sentences a second
    before: list[load.Answer] = field(default_factory=list)
    during: list[load.Answer] = field(default_factory=list)
    after: list[load.Answer] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    # How many each process had in use, by phase.
    processors: dict[str, dict[str, float]] = field(default_factory=dict)


class Use:
    """What the service and this client take of the processors from when it is made."""

    def __init__(self, service: Stack) -> None:
        self._service = service
        self._began_s, self._before_s = time.monotonic(), self._spent_s()

    def _spent_s(self) -> dict[str, float]:
        client_s = time.process_time()  # before the servers are looked at, which takes some
        servers = self._service.servers()
        return {name: one.cpu_s() for name, one in servers.items()} | {"client": client_s}

    def processors(self) -> dict[str, float]:
        """How many each process had in use on average."""
        passed_s, spent_s = time.monotonic() - self._began_s, self._spent_s()
        return {name: (s - self._before_s[name]) / passed_s for name, s in spent_s.items()}


def requests(deadline_s: float) -> Iterator[load.Request]:
    """One sentence each, of which none comes twice."""
    header = f"X-Deadline-Ms: {deadline_s * 1000:.0f}"
    for number, text in enumerate(itertools.cycle(sentences())):
        yield replace(translation([f"{text} {number}"], header), reject=refused)


def refused(status: int, body: bytes) -> str:
    """ "" if there is a text, else the problem's code, or what is wrong."""
    if status == 200:
        return wrong(status, body, 1)
    return str(json.loads(body).get("code", f"status {status}"))


async def pour(
    where: load.Address,
    sent: Iterator[load.Request],
    rate: float,
    seconds: float,
    timeout_s: float,
) -> list[load.Answer]:
    """Independent arrivals, ``rate`` a second on average, whatever becomes of them."""
    due_s = load.poisson(rate, seconds, int(rate * seconds))
    few = itertools.islice(sent, len(due_s))
    return await load.open_loop(where, few, due_s, timeout_s, kept=KEPT)


async def capacity(where: load.Address, connections: int, deadline_s: float) -> float:
    """Texts a second, in the second half of the time. Raises NotStarted."""
    answers = await load.closed_loop(where, requests(deadline_s), connections, CAPACITY_S)
    half_s = CAPACITY_S / 2
    texts = sum(not one.failure and half_s < one.ended_s <= CAPACITY_S for one in answers)
    if not texts:
        raise NotStarted("nothing was translated while the capacity was measured")
    return texts / half_s


async def overloaded(service: Stack, engine: Engine, options: argparse.Namespace) -> Run:
    where = load.address(service.url)
    await warm_up(where)
    run = Run()
    connections = 3 * engine.slots * options.workers
    use = Use(service)
    run.capacity = await capacity(where, connections, 4 * options.deadline_s)
    run.processors["capacity"] = use.processors()
    sent, timeout_s = requests(options.deadline_s), options.deadline_s + ANSWER_S
    calm, flood = CALM_SHARE * run.capacity, options.factor * run.capacity
    run.before = await pour(where, sent, calm, CALM_S, timeout_s)
    watching = asyncio.create_task(_watch(service, run.samples))
    use = Use(service)
    pouring = asyncio.create_task(pour(where, sent, flood, options.seconds, timeout_s))
    await asyncio.sleep(options.seconds)
    run.processors["overload"] = use.processors()
    run.after = await pour(where, sent, calm, AFTER_S, timeout_s)
    run.during = await pouring
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return run


async def _watch(service: Stack, samples: list[Sample]) -> None:
    clock = asyncio.get_running_loop().time
    began_s, servers = clock(), service.servers()
    producer = Producer(service.settings, "overload")
    redis: Any = connect(service.settings)

    def memory() -> tuple[int, dict[str, int]]:
        resident = {name: one.resident_bytes() for name, one in servers.items()}
        return redis.info("memory")["used_memory"], resident

    try:
        while True:
            outstanding = (await producer.load(MODEL)).outstanding_cost
            samples.append(Sample(clock() - began_s, outstanding, *await asyncio.to_thread(memory)))
            await asyncio.sleep(SAMPLE_S)
    finally:
        redis.close()
        await producer.close()


def recovered(run: Run) -> str:
    """From when on every request takes no longer than twice the slowest one before."""
    usual_s = 2 * max(answer.latency_s for answer in run.before if not answer.failure)
    slow = [answer.failure or answer.latency_s > usual_s for answer in run.after]
    if slow[-1]:
        return f"not within {AFTER_S:g} s after the end"
    due_s = (a.ended_s - a.latency_s for a, late in zip(run.after, slow, strict=True) if late)
    return f"{max(due_s, default=0.0):.1f} s after the end"


def _spread(latencies_s: Sequence[float]) -> list[str]:
    if not latencies_s:
        return ["–"] * 4
    ordered = sorted(latencies_s)
    return [
        *(report.shown(load.quantile(ordered, share)) for share in (0.5, 0.95, 0.99)),
        report.shown(ordered[-1]),
    ]


def outcome_rows(run: Run) -> list[list[str]]:
    kinds = Counter(answer.failure for answer in run.during)
    total = len(run.during)
    rows = []
    for kind, count in kinds.most_common():
        latencies_s = [answer.latency_s for answer in run.during if answer.failure == kind]
        share = f"{100 * count / total:.1f}%"
        rows.append([kind or "text", str(count), share, *_spread(latencies_s)])
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
    texts = [answer for answer in run.during if not answer.failure]
    # What ends within the deadline's time of the start was not yet work under full load.
    steady = [a for a in texts if options.deadline_s < a.ended_s <= options.seconds]
    goodput = sum(a.latency_s <= options.deadline_s for a in steady) / (
        options.seconds - options.deadline_s
    )
    refusals = sum(answer.failure in REFUSALS for answer in run.during)
    accepted = len(run.during) - refusals
    kept = sum(answer.latency_s <= options.deadline_s for answer in texts)
    before_s = sorted(answer.latency_s for answer in run.before)
    facts = [
        ["capacity", f"{run.capacity:.1f} sentences/s"],
        ["came", f"{len(run.during) / options.seconds:.1f} /s"],
        ["answered in time", f"{goodput:.1f} /s, {100 * goodput / run.capacity:.0f}% of capacity"],
        ["refused", f"{100 * refusals / len(run.during):.1f}%"],
        ["accepted, and in time", f"{kept} of {accepted} ({100 * kept / max(1, accepted):.2f}%)"],
        ["p95 before", f"{load.quantile(before_s, 0.95):.3f} s"],
        ["latency as before", recovered(run)],
    ]
    outcomes = ("answer", "requests", "share", "p50", "p95", "p99", "max")
    memory = ("at", "characters outstanding", "Valkey used MiB")
    taken = [[phase, *(f"{n:.2f}" for n in use.values())] for phase, use in run.processors.items()]
    servers = [f"{name} RSS MiB" for name in run.samples[0].resident]
    return (
        f"`{report.command('overload')}`\n\n"
        f"{options.seconds:g} s of {options.factor:g} times the capacity, one sentence a request,"
        f" deadline {options.deadline_s:g} s; {options.workers} workers ({engine.name}),"
        f" {options.api_processes} API process(es), results kept for {options.result_ttl_s} s.\n\n"
        f"{report.table(('', ''), facts)}\n\n"
        f"{report.table(outcomes, outcome_rows(run))}\n\nSeconds from when a request was due.\n\n"
        f"{report.table(('processors in use', *run.processors['overload']), taken)}\n\n"
        f"{report.table((*memory, *servers), memory_rows(run, options.seconds))}\n\n{machine}.\n"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("overload", __doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=SECONDS, help="how long the overload lasts")
    add("--factor", type=float, default=FACTOR, help="times the capacity")
    add("--deadline-s", type=float, default=DEADLINE_S, help="what each request allows")
    add("--engine", choices=("paced", "real"), default="paced", help="waits, or the bundled model")
    add("--batch-s", type=float, default=BATCH_S, help="how long a batch of the paced engine takes")
    add("--workers", type=int, default=WORKERS, help="worker processes")
    add("--api-processes", type=int, default=API_PROCESSES, help="API processes")
    add("--result-ttl-s", type=int, default=RESULT_TTL_S, help="how long results are kept")
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
    environ = {"DRAGOMAN_RESULT_TTL_S": str(options.result_ttl_s)}
    paced = options.engine == "paced"
    engine = stacks.paced(options.batch_s, SLOTS) if paced else stacks.bundled(REAL_SLOTS)

    def measure(machine: str) -> str:
        with stacks.stack(
            engine.worker,
            workers=options.workers,
            api_processes=options.api_processes,
            environ=environ,
        ) as service:
            run = uvloop.run(overloaded(service, engine, options))
        return told(run, engine, options, machine)

    return report.made("overload", measure, options.out)


if __name__ == "__main__":
    sys.exit(main())
