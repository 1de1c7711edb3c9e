"""How much later an answer comes because HTTP and Redis lie between it and the engine.

    python -m benchmarks.latency [--loads 0.1 0.3 0.5 0.7 0.8 0.9] [--seconds 8]

Requests of one sentence each come as independent callers send them: at random times (Poisson) that
are fixed beforehand, whatever has become of earlier ones. A latency counts from when its request
was due, so that a service or a client that falls behind cannot hide it. The same sentences at the
same times go to the bare engine (``benchmarks/bare``), load by load in turns with the service: a
machine's processors are not equally fast all the time. Both are warmed up before each turn. Loads
are shares of what that engine does when it is full.

- at 30 % load, in several turns: the quantiles of both sides, and by how much they differ;
- the curve of latency over throughput, as a picture too;
- baselines: one caller after the other, one caller who pauses at random, and many at once;
- connections: kept, or opened for each request by address or by name, with a worker that takes no
  time, so that nothing else is seen.

The engine has one thread; Redis, API and this client share the last processor. Translation memory
and self-checks are off.
"""

import argparse
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import cycle, islice

import uvloop

from benchmarks import bare, load, report, stacks
from benchmarks.curve import QUANTILES, Point, Side, curve_table, draw, quoted_table
from benchmarks.report import tell
from benchmarks.requests import check, of_pair
from benchmarks.servers import HOST
from benchmarks.stacks import ENGINE_ALONE, Spent, Stack, accounted, beside, confined

LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
QUOTED = 0.3  # the load at which the added latency is told
QUOTED_TURNS = 4  # of it; other loads have one
WANTED = "P50 ≤ 5 ms, P99 ≤ 20 ms"
CLIENTS = 48  # connections that are kept
PAUSE_S = 0.05  # of a caller who pauses at random, on average
TIMEOUT_S = 120.0
INSTANT_SLOTS = 64
CONNECTION_TURNS = 2  # of each way to connect
WARM_UP = 16  # requests


# ── The bare engine ──────────────────────────────────────────────────────────────────────────────


def alone(*arguments: str) -> bare.Report:
    """Raises NotStarted."""
    return bare.alone("small", arguments, ENGINE_ALONE)


def arriving(rate: float, seconds: float, turn: int) -> list[float]:
    """What sentences take that come to the engine itself. Raises NotStarted."""
    warm_up = ("--records", str(WARM_UP))
    times = ("--rates", str(rate), "--seconds", str(seconds), "--seed", str(turn))
    return alone(*warm_up, *times).rates[0]


def attended_alone(seconds: float) -> list["Attended"]:
    """One client of the engine itself, and many. Raises NotStarted."""
    clients = (1, CLIENTS)
    arguments = ["--records", str(WARM_UP), "--clients", *map(str, clients)]
    found = alone(*arguments, "--seconds", str(seconds)).clients
    return [Attended.of(*each, seconds) for each in zip(found, clients, strict=True)]


# ── The service ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(worker: Sequence[str]) -> Iterator[Stack]:
    """Everything started and warm. Raises NotStarted."""
    with stacks.stack(worker, environ=ENGINE_ALONE, beside=beside()) as service:
        warm_up(service)
        yield service


def warm_up(service: Stack) -> None:
    where = load.address(service.url)
    check(uvloop.run(load.drained(where, requests(WARM_UP), WARM_UP, TIMEOUT_S)))


def requests(count: int) -> list[load.Request]:
    """One sentence each, the same as the bare engine gets."""
    return list(islice(cycle(known_requests()), count))


@cache  # they are made once, not while the client's processor time is counted
def known_requests() -> list[load.Request]:
    return [of_pair([text]) for text in bare.texts(bare.vocabulary_of("small"), bare.MOST_TEXTS)]


def loaded(service: Stack, due_s: Sequence[float]) -> list[float]:
    """What requests take that come at these times, on connections that are kept."""
    warm_up(service)  # it has been idle while the bare engine had its turn
    where, sent = load.address(service.url), requests(len(due_s))
    with confined(beside()):
        answers = uvloop.run(load.open_loop(where, sent, due_s, TIMEOUT_S, kept=CLIENTS))
    check(answers)
    return [answer.latency_s for answer in answers]


@dataclass(frozen=True)
class Attended:
    """Clients who wait for an answer before they ask again."""

    side: Side
    rate: float  # of answers, a second

    @classmethod
    def of(cls, found: bare.Attended, clients: int, seconds: float) -> "Attended":
        return cls(Side.of(found.took_s), load.steady_rate(found.ended_s, seconds, clients))


def attended(
    service: Stack, clients: int, seconds: float, *, kept: bool = True, pause_s: float = 0.0
) -> Attended:
    """They ask for so long."""
    where, sent = load.address(service.url), requests(bare.MOST_TEXTS)
    pauses_s = _pauses(pause_s) if pause_s else None
    with confined(beside()):
        answers = uvloop.run(
            load.closed_loop(where, sent, clients, seconds, kept=kept, pauses_s=pauses_s)
        )
    check(answers)
    took_s = [answer.latency_s for answer in answers]
    ended_s = [answer.ended_s for answer in answers]
    return Attended.of(bare.Attended(took_s, ended_s), clients, seconds)


def _pauses(mean_s: float) -> Iterator[float]:
    rng = random.Random(0)
    while True:
        yield rng.expovariate(1 / mean_s)


# ── The report ───────────────────────────────────────────────────────────────────────────────────


BASELINE_HEADS = ("callers", "side", "requests/s", *(f"{name} ms" for name in QUANTILES))


def baseline_row(callers: str, side: str, found: Attended) -> list[str]:
    quantiles = [f"{value:.1f}" for value in found.side.quantiles()]
    return [callers, side, f"{found.rate:.1f}", *quantiles]


def baseline_rows(service: Stack, seconds: float) -> list[list[str]]:
    """The ways of asking without a plan."""
    one, many = attended_alone(seconds)
    warm_up(service)
    pausing = attended(service, 1, seconds, pause_s=PAUSE_S)
    return [
        baseline_row("one after the other", "bare", one),
        baseline_row("one after the other", "service", attended(service, 1, seconds)),
        baseline_row(f"one, random pauses of {PAUSE_S:g} s", "service", pausing),
        baseline_row(f"{CLIENTS} at once", "bare", many),
        baseline_row(f"{CLIENTS} at once", "service", attended(service, CLIENTS, seconds)),
    ]


CONNECTION_HEADS = (
    *("connections", "clients", "requests/s", "gain", "P50 ms", "P99 ms"),
    *("API CPU-µs", "client CPU-µs"),
)


CONNECTIONS = (  # what they are called, the host, whether they are kept
    ("new for each request, by name", "localhost", False),
    ("new for each request, by address", HOST, False),
    ("kept", HOST, True),
)


@dataclass
class Connected:
    """One way to connect, over several turns."""

    rates: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    api_s: float = 0.0
    client_s: float = 0.0

    def add(self, found: Attended, spent: Spent) -> None:
        self.rates.append(found.rate)
        self.latencies_ms += found.side.latencies_ms
        self.api_s += spent.by_tier["api"]
        self.client_s += spent.client

    def row(self, name: str, clients: int, slowest: "Connected") -> list[str]:
        rate, ordered = statistics.fmean(self.rates), sorted(self.latencies_ms)
        return [
            name,
            str(clients),
            f"{rate:.0f}",
            f"{rate / statistics.fmean(slowest.rates):.2f}",
            *(f"{load.quantile(ordered, share):.1f}" for share in (0.5, 0.99)),
            *(f"{1e6 * spent / len(ordered):.0f}" for spent in (self.api_s, self.client_s)),
        ]


def connection_rows(seconds: float) -> list[list[str]]:
    """What it gains to keep connections: each way in turn, twice."""
    rows = []
    with serving(stacks.paced(0.0, INSTANT_SLOTS).worker) as service:
        port = load.address(service.url)[1]
        for clients in (1, CLIENTS):
            ways = [Connected() for _ in CONNECTIONS]
            for _ in range(CONNECTION_TURNS):
                for way, (_, host, kept) in zip(ways, CONNECTIONS, strict=True):
                    there = service.at(f"http://{host}:{port}")
                    with accounted(service) as spent:
                        found = attended(there, clients, seconds / CONNECTION_TURNS, kept=kept)
                    way.add(found, spent[0])
            rows += [
                way.row(name, clients, ways[0])
                for way, (name, _, _) in zip(ways, CONNECTIONS, strict=True)
            ]
    return rows


def measured(options: argparse.Namespace) -> tuple[bare.Run, list[Point], list[list[str]]]:
    """The bare engine when it is full, every load on both sides, and the rows of the baselines."""
    full = alone("--records", str(options.records)).saturated
    tell(f"the bare engine does {full.rate:.1f} sentences/s")
    with serving(stacks.worker_of("small")) as service:
        points = [
            compared(service, share, share * full.rate, options.seconds) for share in options.loads
        ]
        rows = baseline_rows(service, options.seconds)
    return full, points, rows


def compared(service: Stack, share: float, rate: float, seconds: float) -> Point:
    """A load on both sides, in turns."""
    by_itself: list[float] = []
    through: list[float] = []
    for turn in range(QUOTED_TURNS if share == QUOTED else 1):
        by_itself += arriving(rate, seconds, turn)
        through += loaded(service, load.poisson(rate, seconds, turn))
    point = Point(share, rate, Side.of(by_itself), Side.of(through))
    added = ", ".join(f"{value:.1f}" for value in point.added_ms())
    tell(f"load {share:g}: {len(through)} requests, added {added} ms")
    return point


def told(
    full: bare.Run,
    points: Sequence[Point],
    baselines: Sequence[Sequence[str]],
    connections: Sequence[Sequence[str]],
    machine: str,
) -> str:
    """The report in Markdown."""
    parts = [
        f"`{report.command('latency')}`",
        f"Bundled model, engine {full.engine} with one thread; full, it does"
        f" {full.rate:.1f} sentences/s. {CLIENTS} kept connections, one sentence a request.",
    ]
    for point in points:
        if point.load == QUOTED:
            count = len(point.service.latencies_ms)
            parts += [
                f"**Added latency at {100 * QUOTED:.0f} % load**, {count} requests, the two sides"
                f" in {QUOTED_TURNS} turns."
                f" Wanted: {WANTED}.",
                quoted_table(point),
            ]
    parts += [
        "**Latency over throughput**, milliseconds from when a request was due.",
        curve_table(points),
        "![Latency over throughput](latency.png)",
        "**Baselines**: callers who wait for their answer before they ask again.",
        report.table(BASELINE_HEADS, baselines),
        "**Connections**, with a worker that takes no time.",
        report.table(CONNECTION_HEADS, connections),
        f"{machine}.",
    ]
    return "\n\n".join(parts) + "\n"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("latency", __doc__)
    add = parser.add_argument
    add("--loads", type=float, nargs="+", default=list(LOADS), help="shares of the full engine")
    add("--seconds", type=float, default=8.0, help="of each turn; 0.3 has four")
    add("--records", type=int, default=800, help="that tell what the full engine does")
    options = parser.parse_args(arguments)
    if not all(0 < share <= 1.5 for share in options.loads):
        parser.error("--loads must be above 0 and at most 1.5")
    if not 0 < options.seconds <= 300 or not 1 <= options.records <= bare.MOST_RECORDS:
        parser.error(f"--seconds must be at most 300, --records 1 to {bare.MOST_RECORDS}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)

    def measure(machine: str) -> str:
        full, points, baselines = measured(options)
        connections = connection_rows(options.seconds / 2)
        try:
            draw(points, options.out / "latency.png")
        except ImportError:
            tell("no picture: pip install matplotlib")
        return told(full, points, baselines, connections, machine)

    return report.made("latency", measure, options.out)


if __name__ == "__main__":
    sys.exit(main())
