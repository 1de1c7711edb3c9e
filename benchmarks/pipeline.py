"""What the way through HTTP and Redis costs, as ratios from one run.

    python -m benchmarks.pipeline [--parts engine,tiers,broker] [--models 418m,small]

- engine: records a second through HTTP, Redis and one worker, always with work waiting, over those
  of the bare engine (``benchmarks/bare``) on the same sentences with the same settings. ``418m`` is
  the shape of facebook/m2m100_418M (``benchmarks/countdown``; 1.4 GB, written once).
- tiers: processor time a record costs API, Redis and worker when the engine takes none.
- broker: records a second through the broker's own calls, from submit to outcome, over what
  ``redis-benchmark`` appends to a stream on the same server, pipelined. And the same in processor
  time of the server alone, since clients in Python want the same processors.

``DRAGOMAN_ENGINE=torch DRAGOMAN_DEVICE=cuda`` before the command, with ``--slots 256``, does it on
a GPU. The engine has one thread. With two processors or more, Redis, API and this client get the
last one and the worker may use all, so that they do not compete with the engine. ``--rounds``
measurements take turns, and the median counts. Translation memory and self-checks are off: nothing
is answered without the engine, and nothing is translated twice.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import uvloop

from benchmarks import bare, load, report, stacks, trips
from benchmarks.report import tell
from benchmarks.requests import check, of_pair
from benchmarks.servers import started
from benchmarks.stacks import ENGINE_ALONE, Spent, Stack, accounted, beside, confined
from broker.wire import Record

PARTS = ("engine", "tiers", "broker")
WANTED, WANTED_TRIPS = "0.95, stretch 0.98", "0.15, stretch 0.25"
TIMEOUT_S = 280.0  # POST /translation answers 504 after 300


@dataclass(frozen=True)
class Plan:
    """How a model is measured: so that a side of a round takes a quarter of a minute to a minute on
    one core. The first batch through everything is small, since requests come one after the other,
    and the last one is what is left: with many batches that does not count."""

    records: int
    connections: int  # more than the engine holds
    slots: int


MOST_SLOTS = 1024

# Smaller batches for the large model, so that there are many of them; both sides have the same.
PLANS = {"418m": Plan(240, 64, 8), "small": Plan(1_600, 256, 16)}


# ── The engine ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Round:
    """The same sentences through the bare engine and through everything."""

    alone: bare.Run
    seconds: float
    spent: Spent

    @property
    def ratio(self) -> float:
        return self.alone.seconds / self.seconds

    @property
    def cpu_ratio(self) -> float:
        """Of what the bare engine and the whole worker process spend on a record."""
        return self.alone.cpu_s / self.spent.by_tier["workers"]


ENGINE_HEADS = (
    *("model", "engine", "records", "bare records/s", "service records/s", "**ratio**"),
    *("spread", "bare ÷ worker CPU", "API CPU-µs", "Redis CPU-µs", "client CPU-µs"),
)


def engine_row(model: str, plan: Plan, rounds: int) -> list[str]:
    environ = ENGINE_ALONE | {"DRAGOMAN_SLOTS": str(plan.slots)}
    done = []
    for _ in range(rounds):
        alone = bare.alone(model, ["--records", str(plan.records)], environ).saturated
        done.append(Round(alone, *through_everything(model, plan, environ)))
        tell(f"{model}: bare {alone.seconds:.1f} s, service {done[-1].seconds:.1f} s")
    middle = sorted(done, key=lambda one: one.ratio)[(len(done) - 1) // 2]
    ratios = [one.ratio for one in done]
    return [
        model,
        middle.alone.engine,
        str(plan.records),
        f"{middle.alone.rate:.2f}",
        f"{plan.records / middle.seconds:.2f}",
        f"{middle.ratio:.3f}",
        f"{min(ratios):.3f}–{max(ratios):.3f}",
        f"{statistics.median(one.cpu_ratio for one in done):.3f}",
        *each_us(middle.spent, plan.records, ("api", "redis")),
    ]


def through_everything(model: str, plan: Plan, environ: Mapping[str, str]) -> tuple[float, Spent]:
    """Seconds from the first request to the last answer, all of them one record each."""
    texts = bare.texts(bare.vocabulary_of(model), plan.records)
    # Random weights say what they say.
    requests = [of_pair([text], blank=model != "small") for text in texts]
    with (
        stacks.stack(
            stacks.worker_of(model), model=bare.named(model), environ=environ, beside=beside()
        ) as service,
        confined(beside()),
    ):
        where = load.address(service.url)
        uvloop.run(load.drained(where, requests[:1], 1, TIMEOUT_S))
        with accounted(service) as spent:
            began_s = load.now_s()
            answers = uvloop.run(load.drained(where, requests, plan.connections, TIMEOUT_S))
            seconds = load.now_s() - began_s
    check(answers)
    return seconds, spent[0]


# ── The tiers without an engine ──────────────────────────────────────────────────────────────────

TIER_HEADS = (
    *("requests", "connections", "records/s", "p50 ms"),
    *("API CPU-µs", "worker CPU-µs", "Redis CPU-µs", "client CPU-µs"),
)
TIER_SHAPES = ((1, 64), (16, 16))  # records of a request, connections
TIER_SLOTS = 64
PAIR = ("en", "ja")


def tier_rows(seconds: float) -> list[list[str]]:
    """What a record costs each tier, with a worker whose engine takes no time."""
    found = bare.texts(bare.vocabulary_of("small"), 1_000)
    texts = [text for text in found if (text.source_language, text.target_language) == PAIR]
    rows = []
    engine = stacks.paced(0.0, TIER_SLOTS)
    with stacks.stack(engine.worker, environ=ENGINE_ALONE) as service:
        for records, connections in TIER_SHAPES:
            requests = [
                of_pair([*texts, *texts][start : start + records])
                for start in range(0, len(texts), records)
            ]
            rows.append(tier_row(service, requests, records, connections, seconds))
    return rows


def tier_row(
    service: Stack, requests: Sequence[load.Request], records: int, connections: int, seconds: float
) -> list[str]:
    where = load.address(service.url)
    check(uvloop.run(load.closed_loop(where, requests, connections, seconds / 5)))  # warms up
    with accounted(service) as spent:
        answers = uvloop.run(load.closed_loop(where, requests, connections, seconds))
    check(answers)
    done = len(answers) * records
    rate = load.steady_rate([answer.ended_s for answer in answers], seconds, connections)
    latencies_ms = sorted(answer.latency_s * 1000 for answer in answers)
    return [
        f"{records} record{'s' * (records > 1)}",
        str(connections),
        f"{rate * records:.0f}",
        f"{load.quantile(latencies_ms, 0.5):.1f}",
        *each_us(spent[0], done, ("api", "workers", "redis")),
    ]


def each_us(spent: Spent, records: int, tier_names: Sequence[str]) -> list[str]:
    """Microseconds of processor time a record, of some tiers and of the client."""
    seconds = [*(spent.by_tier[tier] for tier in tier_names), spent.client]
    return [f"{1e6 * one / records:.0f}" for one in seconds]


# ── The broker alone ─────────────────────────────────────────────────────────────────────────────

TRIP_HEADS = (
    *("requests", "in flight", "records/s", "XADD/s", "**÷ XADD/s**"),
    *("Redis CPU-µs", "**XADD ÷ record, Redis CPU**"),
)
TRIP_SHAPES = (trips.Shape(1, 64), trips.Shape(16, 64), trips.Shape(1_000, 4))
APPENDS = 300_000


def trip_rows(seconds: float) -> tuple[str, list[list[str]]]:
    """What appends, and the rows: each shape and the appends it is compared with in turn."""
    with stacks.valkey() as (folder, redis):
        settings = trips.settings_of(folder)
        argv = [sys.executable, "-m", "benchmarks.trips", "--redis-url", settings.redis_url]
        rows = []
        with started(argv, trips.READY):
            for shape in TRIP_SHAPES:
                uvloop.run(trips.made(settings, shape, seconds / 5))
                before_s = redis.cpu_s()
                appends = trips.xadd(folder, record_bytes(), APPENDS)
                between_s = redis.cpu_s()
                records, took_s = uvloop.run(trips.made(settings, shape, seconds))
                each_s = (redis.cpu_s() - between_s) / records
                append_s = (between_s - before_s) / APPENDS
                rate = records / took_s
                rows.append(
                    [
                        f"{shape.records} record{'s' * (shape.records > 1)}",
                        str(shape.in_flight),
                        f"{rate:.0f}",
                        f"{appends.rate:,.0f}",
                        f"{rate / appends.rate:.3f}",
                        f"{1e6 * each_s:.1f}",
                        f"{append_s / each_s:.3f}",
                    ]
                )
    return appends.client, rows


def record_bytes() -> int:
    """The length of a record as the broker writes it."""
    record = Record(
        request="0" * 34,
        index=0,
        tenant="default",
        lane="interactive",
        source="en",
        target="ja",
        text=trips.TEXT,
        cost=len(trips.TEXT),
        accepted_ms=1_790_000_000_000,
        deadline_ms=1_790_000_600_000,
    )
    return len(msgspec.json.encode(record))


# ── The report ───────────────────────────────────────────────────────────────────────────────────


def told(options: argparse.Namespace, machine: str) -> str:
    """Measures, and reports in Markdown."""
    parts = [f"`{report.command('pipeline')}`"]
    if "engine" in options.parts:
        plans = {model: planned(model, options) for model in options.models}
        rows = [engine_row(model, plan, options.rounds) for model, plan in plans.items()]
        slots = ", ".join(f"{plan.slots} slots for {model}" for model, plan in plans.items())
        parts += [
            f"**Through HTTP and Redis ÷ the bare engine**, one record a request, the same"
            f" sentences, always with work waiting; one thread, {slots}. Wanted: {WANTED}.",
            report.table(ENGINE_HEADS, rows),
        ]
    if "tiers" in options.parts:
        parts += [
            f"**CPU a record costs when the engine takes no time**, {options.seconds:g} s each.",
            report.table(TIER_HEADS, tier_rows(options.seconds)),
        ]
    if "broker" in options.parts:
        client, trip_table = trip_rows(options.seconds)
        parts += [
            f"**The broker alone**: submit, read, begin, complete, news, outcomes, with Python on"
            f" both ends. Compared with XADD by {client} (-P {trips.PIPELINE} -c {trips.CLIENTS},"
            f" a record of {record_bytes()} bytes), in turn. Wanted: {WANTED_TRIPS}.",
            report.table(TRIP_HEADS, trip_table),
        ]
    return "\n\n".join([*parts, f"{machine}."]) + "\n"


def planned(model: str, options: argparse.Namespace) -> Plan:
    plan = PLANS[model]
    slots = options.slots or plan.slots
    # As many connections for each slot as planned.
    return Plan(options.records or plan.records, plan.connections // plan.slots * slots, slots)


def listed(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(value: str) -> list[str]:
        names = value.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {known}")
        return names

    return read


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("pipeline", __doc__)
    add = parser.add_argument
    add("--parts", type=listed(PARTS), default=list(PARTS), help="of engine,tiers,broker")
    add("--models", type=listed(bare.MODELS), default=list(PLANS), help="of 418m,small")
    add("--rounds", type=int, default=3, help="measurements of each model")
    add("--records", type=int, default=0, help="of each measurement of a model, if not as planned")
    add("--slots", type=int, default=0, help="of the engine, if not as planned")
    add("--seconds", type=float, default=5.0, help="of each measurement without an engine")
    options = parser.parse_args(arguments)
    if not 1 <= options.rounds <= 20 or not 0 <= options.records <= bare.MOST_RECORDS:
        parser.error(f"--rounds takes 1 to 20, --records up to {bare.MOST_RECORDS}")
    if not 0 <= options.slots <= MOST_SLOTS:
        parser.error(f"--slots takes up to {MOST_SLOTS}")
    if not 0 < options.seconds <= 60:
        parser.error("--seconds must be between 0 and 60")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    return report.made("pipeline", lambda machine: told(options, machine), options.out)


if __name__ == "__main__":
    sys.exit(main())
