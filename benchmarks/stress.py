"""The stress test of the service that Dragoman replaces: requests of ``--pay-size`` records, one
every ``--sleep`` seconds whether or not earlier ones are answered, ``--num-req`` of them.

    python -m benchmarks.stress --pay-size 16 --num-req 100 --sleep 0.01
    python -m benchmarks.stress --grid [--baseline]

``--grid`` runs 1 and 16 records × every 0.5, 0.1 and 0.01 s × 100 requests. Each cell gets a fresh
``dragoman up`` (or, with ``--url``, the server that runs there). ``--baseline`` runs the same cells
against what Dragoman replaces, the same model inside one FastAPI process (``benchmarks/baseline``);
cells and services alternate, so that a machine that is shared is shared fairly.

One rule for both: a request succeeds if a 200 with all of its ids in order and a text for each is
there within ``--timeout-s`` of when the request was due. The share that came within 60 s is told
too: that is where common proxies give up unless they are told otherwise.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks import baseline, load, report
from benchmarks.cells import HEADS, Cell, Result, agreement, draw, judged
from benchmarks.report import tell
from benchmarks.requests import batches, warm_up
from benchmarks.servers import HOST, NotStarted, Server, started, stop_in_order_when_terminated
from dragoman import scrape
from dragoman.stack import free_port

OURS = "Dragoman"
BEAMS = 5
PAY_SIZES, SLEEPS_S, NUM_REQ = (1, 16), (0.5, 0.1, 0.01), 100
TIMEOUT_S = 300.0  # the longest that POST /translation waits
MOST_REQUESTS, MOST_RECORDS, MOST_S = 10_000, 1_000, 7_200


def measured(side: str, cell: Cell, service: "Service", timeout_s: float) -> Result:
    """Warms the service up and runs a cell against it."""
    where = load.address(service.url)
    asyncio.run(warm_up(where))
    engine = asyncio.run(engine_of(where)) if side.startswith(OURS) else baseline.ENGINE
    before_s = service.cpu_s()
    due_s = load.evenly(cell.num_req, cell.sleep_s)
    requests = batches(cell.num_req, cell.pay_size)
    answers = asyncio.run(load.open_loop(where, requests, due_s, timeout_s))
    cpu_s = service.cpu_s() - before_s if service.server else None
    return judged(side, cell, answers, cpu_s, engine)


async def engine_of(where: load.Address) -> str:
    """What the workers compute with, as the server tells it."""
    connection = await load.Connection.open(where)
    try:
        _, body = await connection.exchange(load.message("GET", "/metrics"))
    finally:
        connection.close()
    found = scrape.parse(body.decode()).get("dragoman_worker_info", [])
    return ", ".join(sorted({labels["engine"] for labels, _ in found})) or "unknown"


@dataclass(frozen=True)
class Service:
    """Something that translates at ``url``; ``server`` is its process if it is ours."""

    url: str
    server: Server | None = None

    def cpu_s(self) -> float:
        return self.server.cpu_s() if self.server else 0.0


@contextmanager
def dragoman(model: str, workers: int) -> Iterator[Service]:
    """A fresh ``dragoman up``."""
    port = free_port(HOST)
    argv = [sys.executable, "-m", "dragoman", "up", "--port", str(port), "--model", model]
    argv += ["--workers", str(workers)]
    # The baseline has no memory either, and the sentences repeat.
    with started(argv, "Dragoman is ready on", environ={"DRAGOMAN_MEMORY": "false"}) as server:
        yield Service(f"http://{HOST}:{port}", server)


@contextmanager
def in_process(model: str, beams: int, threads: int) -> Iterator[Service]:
    """A fresh baseline."""
    port = free_port(HOST)
    argv = [sys.executable, "-m", "benchmarks.baseline", "--port", str(port), "--model", model]
    argv += ["--beams", str(beams), "--concurrency", str(threads)]
    with started(argv, baseline.READY) as server:
        yield Service(f"http://{HOST}:{port}", server)


Serving = Callable[[], AbstractContextManager[Service]]


def sides(options: argparse.Namespace) -> dict[str, Serving]:
    """The services to measure by name: what makes each ready and stops it again."""
    if options.url:
        return {OURS: lambda: contextlib.nullcontext(Service(options.url))}
    found: dict[str, Serving] = {}
    for workers in options.workers:
        name = f"{OURS}, {workers} worker{'s' * (workers > 1)}"
        found[name] = partial(dragoman, options.model, workers)
    beams = int(os.environ.get("DRAGOMAN_BEAMS") or BEAMS)  # as our workers read it
    for threads in options.baseline:
        name = "in-process" + f", {threads} at a time" * (threads != baseline.THREADS)
        found[name] = partial(in_process, options.model, beams, threads)
    return found


def told(results: Sequence[Result], options: argparse.Namespace, machine: str) -> str:
    """The report in Markdown."""
    engines = dict.fromkeys(f"{result.side}: {result.engine}" for result in results)
    parts = [
        f"`{report.command('stress')}`",
        report.table(HEADS, [result.row() for result in results]),
        f"Seconds; quantiles and means are of the answered requests. A request succeeds if a 200"
        f" with every id and a text for each comes within {options.timeout_s:g} s of when it was"
        f" due.",
        agreement(results),
        f"Engines: {'; '.join(engines)}. Model {options.model}, {given(options)}.",
        f"{machine}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def given(options: argparse.Namespace) -> str:
    """Settings that are not the defaults."""
    if options.url:
        return "a server that was running already"
    return " ".join(report.settings()) or "default settings"


def write(folder: Path, results: Sequence[Result], text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stress.md").write_text(text, encoding="utf-8")
    documents = [{k: v for k, v in asdict(one).items() if k != "texts"} for one in results]
    (folder / "stress.json").write_text(json.dumps(documents, indent=1), encoding="utf-8")
    try:
        draw(results, folder / "stress.png")
    except ImportError:
        tell("no picture: pip install matplotlib")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("stress", __doc__)
    add = parser.add_argument
    add("--pay-size", type=int, default=1, help="records of a request")
    add("--num-req", type=int, default=NUM_REQ, help="requests (of each cell)")
    add("--sleep", type=float, default=0.1, help="seconds from one request to the next")
    add("--grid", action="store_true", help="all six cells instead of one")
    add(
        "--baseline",
        type=int,
        nargs="*",
        metavar="THREADS",
        help=f"measure what Dragoman replaces too, with so many threads ({baseline.THREADS})",
    )
    add("--timeout-s", type=float, default=TIMEOUT_S, help="after which a request has failed")
    add("--url", default="", help="a running server of this machine instead of a fresh one")
    add("--model", default="small", help="checkpoint of both services")
    add("--workers", type=int, nargs="+", default=[1], help="workers of Dragoman; may be several")
    options = parser.parse_args(arguments)
    if options.baseline is None:
        options.baseline = []
    elif not options.baseline:
        options.baseline = [baseline.THREADS]
    try:
        check(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def check(options: argparse.Namespace) -> None:
    """Raises ValueError for what would not end, or leave the machine."""
    if not 1 <= options.num_req <= MOST_REQUESTS:
        raise ValueError(f"--num-req must be between 1 and {MOST_REQUESTS}")
    if not 1 <= options.pay_size <= MOST_RECORDS:
        raise ValueError(f"--pay-size must be between 1 and {MOST_RECORDS}")
    if options.sleep < 0 or options.timeout_s <= 0:
        raise ValueError("--sleep must not be below 0, --timeout-s must be above it")
    slowest_s = max(SLEEPS_S) if options.grid else options.sleep
    if options.num_req * slowest_s + options.timeout_s > MOST_S:
        raise ValueError(f"that may take more than {MOST_S} s")
    if any(count < 1 for count in [*options.workers, *options.baseline]):
        raise ValueError("--workers and --baseline take numbers above 0")
    if options.url:
        load.address(options.url)
        if options.baseline:
            raise ValueError("--baseline starts servers of its own: not with --url")


def cells(options: argparse.Namespace) -> list[Cell]:
    if not options.grid:
        return [Cell(options.pay_size, options.num_req, options.sleep)]
    pairs = itertools.product(PAY_SIZES, SLEEPS_S)
    return [Cell(pay_size, options.num_req, sleep_s) for pay_size, sleep_s in pairs]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if our side answered everything."""
    options = parsed(arguments)
    stop_in_order_when_terminated()
    machine = report.machine()
    results: list[Result] = []
    try:
        for cell, (name, serving) in itertools.product(cells(options), sides(options).items()):
            with serving() as service:
                results.append(measured(name, cell, service, options.timeout_s))
            tell("  ".join(results[-1].row()))
    except NotStarted as error:
        print(f"stress: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if results:
            text = told(results, options, machine)
            print(text)
            write(options.out, results, text)
    ours = [result for result in results if result.side.startswith(OURS)]
    return int(any(result.succeeded < result.cell.num_req for result in ours))


if __name__ == "__main__":
    sys.exit(main())
