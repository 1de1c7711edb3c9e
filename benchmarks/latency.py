"""How much later an answer comes because HTTP and Redis lie between it and the engine.

    python -m benchmarks.latency [--loads 0.1 0.3 0.5 0.7 0.8 0.9] [--seconds 8]

Requests of one sentence each come as independent callers send them: at random times (Poisson) that
are fixed beforehand, whatever has become of earlier ones. A latency counts from when its request
was due, so that a service or a client that falls behind cannot hide it. The same sentences at the
same times go to the bare engine (``benchmarks/bare``), load by load in turns with the service: a
machine's processors are not equally fast all the time. Loads are shares of what that engine does
when it is full.

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
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import uvloop

from benchmarks import bare, load, report, stacks
from benchmarks.curve import QUANTILES, Point, Side, curve_table, draw, quoted_table
from benchmarks.requests import check, of_pair
from benchmarks.servers import NotStarted, stop_in_order_when_terminated
from benchmarks.stacks import ENGINE_ALONE, Stack, accounted, beside, confined

LOADS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
QUOTED = 0.3  # the load at which the added latency is told
QUOTED_TURNS = 4  # of it; other loads have one
WANTED = "P50 ≤ 5 ms, P99 ≤ 20 ms"
CLIENTS = 48  # connections that are kept
PAUSE_S = 0.05  # of a caller who pauses at random, on average
TIMEOUT_S = 120.0
INSTANT_SLOTS = 64
WARM_UP = 16  # requests


# ── The bare engine ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Alone:
    """What the engine does by itself."""

    full: bare.Run
    one_by_one: Side
    many: Side

    @property
    def full_rate(self) -> float:
        return self.full.records / self.full.seconds


def alone(seconds: float, records: int) -> Alone:
    """Raises NotStarted."""
    arguments = ["--records", str(records), "--clients", "1", str(CLIENTS)]
    found = bare.alone("small", [*arguments, "--seconds", str(seconds)], ENGINE_ALONE)
    one, many = (Side.of(latencies) for latencies in found.clients)
    return Alone(found.saturated, one, many)


def arriving(rate: float, seconds: float, turn: int) -> list[float]:
    """What sentences take that come to the engine itself. Raises NotStarted."""
    arguments = ["--records", str(WARM_UP), "--rates", str(rate), "--seconds", str(seconds)]
    found = bare.alone("small", [*arguments, "--seed", str(turn)], ENGINE_ALONE)
    return found.rates[0]


# ── The service ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def serving(worker: Sequence[str]) -> Iterator[Stack]:
    """Everything started and warm. Raises NotStarted."""
    with stacks.stack(worker, environ=ENGINE_ALONE, beside=beside()) as service:
        where = load.address(service.url)
        check(uvloop.run(load.drained(where, requests(WARM_UP), WARM_UP, TIMEOUT_S)))
        yield service


def requests(count: int) -> list[load.Request]:
    """One sentence each, the same as the bare engine gets."""
    known = bare.texts(bare.vocabulary_of("small"), bare.MOST_TEXTS)
    return [of_pair([text]) for text in islice(cycle(known), count)]


def loaded(service: Stack, due_s: Sequence[float]) -> list[float]:
    """What requests take that come at these times, on connections that are kept."""
    where, sent = load.address(service.url), requests(len(due_s))
    with confined(beside()):
        answers = uvloop.run(load.open_loop(where, sent, due_s, TIMEOUT_S, kept=CLIENTS))
    check(answers)
    return [answer.latency_s for answer in answers]


def attended(
    service: Stack, clients: int, seconds: float, *, kept: bool = True, pause_s: float = 0.0
) -> Side:
    """Clients who wait for an answer before they ask again."""
    where, sent = load.address(service.url), requests(bare.MOST_TEXTS)
    pauses_s = _pauses(pause_s) if pause_s else None
    with confined(beside()):
        answers = uvloop.run(
            load.closed_loop(where, sent, clients, seconds, kept=kept, pauses_s=pauses_s)
        )
    check(answers)
    return Side.of([answer.latency_s for answer in answers])


def _pauses(mean_s: float) -> Iterator[float]:
    rng = random.Random(0)
    while True:
        yield rng.expovariate(1 / mean_s)


# ── The report ───────────────────────────────────────────────────────────────────────────────────


BASELINE_HEADS = ("callers", "side", "requests/s", *(f"{name} ms" for name in QUANTILES))


def baseline_row(callers: str, side: str, found: Side, seconds: float) -> list[str]:
    rate = len(found.latencies_ms) / seconds
    return [callers, side, f"{rate:.1f}", *(f"{value:.1f}" for value in found.quantiles())]


def baseline_rows(service: Stack, engine: Alone, seconds: float) -> list[list[str]]:
    """The ways of asking without a plan."""
    return [
        baseline_row("one after the other", "bare", engine.one_by_one, seconds),
        baseline_row("one after the other", "service", attended(service, 1, seconds), seconds),
        baseline_row(
            f"one, random pauses of {PAUSE_S:g} s",
            "service",
            attended(service, 1, seconds, pause_s=PAUSE_S),
            seconds,
        ),
        baseline_row(f"{CLIENTS} at once", "bare", engine.many, seconds),
        baseline_row(f"{CLIENTS} at once", "service", attended(service, CLIENTS, seconds), seconds),
    ]


CONNECTION_HEADS = (
    *("connections", "clients", "requests/s", "gain", "P50 ms", "P99 ms"),
    *("API CPU-µs", "client CPU-µs"),
)


def connection_rows(seconds: float) -> list[list[str]]:
    """What it gains to keep connections."""
    rows = []
    slowest: dict[int, float] = {}
    with serving(stacks.paced_worker(0.0, INSTANT_SLOTS)) as service:
        port = load.address(service.url)[1]
        for clients in (1, CLIENTS):
            for name, host, kept in (
                ("new for each request, by name", "localhost", False),
                ("new for each request, by address", stacks.HOST, False),
                ("kept", stacks.HOST, True),
            ):
                there = service.at(f"http://{host}:{port}")
                with accounted(service) as spent:
                    found = attended(there, clients, seconds, kept=kept)
                count = len(found.latencies_ms)
                rate = count / seconds
                slowest.setdefault(clients, rate)
                rows.append(
                    [
                        name,
                        str(clients),
                        f"{rate:.0f}",
                        f"{rate / slowest[clients]:.2f}",
                        f"{load.quantile(found.latencies_ms, 0.5):.1f}",
                        f"{load.quantile(found.latencies_ms, 0.99):.1f}",
                        f"{1e6 * spent[0].by_tier['api'] / count:.0f}",
                        f"{1e6 * spent[0].client / count:.0f}",
                    ]
                )
    return rows


def measured(options: argparse.Namespace) -> tuple[Alone, list[Point], list[list[str]]]:
    """The bare engine, every load on both sides, and the rows of the baselines."""
    engine = alone(options.seconds, options.records)
    tell(f"the bare engine does {engine.full_rate:.1f} sentences/s")
    with serving(stacks.worker_of("small")) as service:
        points = [
            compared(service, share, share * engine.full_rate, options.seconds)
            for share in options.loads
        ]
        rows = baseline_rows(service, engine, options.seconds)
    return engine, points, rows


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
    engine: Alone,
    points: Sequence[Point],
    baselines: Sequence[Sequence[str]],
    connections: Sequence[Sequence[str]],
    machine: str,
) -> str:
    """The report in Markdown."""
    parts = [
        f"`{report.command('latency')}`",
        f"Bundled model, engine {engine.full.engine} with one thread; full, it does"
        f" {engine.full_rate:.1f} sentences/s. {CLIENTS} kept connections, one sentence a request.",
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


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--loads", type=float, nargs="+", default=list(LOADS), help="shares of the full engine")
    add("--seconds", type=float, default=8.0, help="of each turn; 0.3 has four")
    add("--records", type=int, default=800, help="that tell what the full engine does")
    add("--out", type=Path, default=Path("runs/latency"), help="folder of report and picture")
    options = parser.parse_args(arguments)
    if not all(0 < share <= 1.5 for share in options.loads):
        parser.error("--loads must be above 0 and at most 1.5")
    if not 0 < options.seconds <= 300 or not 1 <= options.records <= bare.MOST_RECORDS:
        parser.error("--seconds must be at most 300, --records at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    stop_in_order_when_terminated()
    machine = report.machine()
    try:
        engine, points, baselines = measured(options)
        connections = connection_rows(options.seconds / 2)
    except NotStarted as error:
        print(f"latency: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    text = told(engine, points, baselines, connections, machine)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "latency.md").write_text(text, encoding="utf-8")
    try:
        draw(points, options.out / "latency.png")
    except ImportError:
        tell("no picture: pip install matplotlib")
    return 0


if __name__ == "__main__":
    sys.exit(main())
