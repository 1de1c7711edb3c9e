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
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import baseline, load, report
from benchmarks.servers import NotStarted, Server, started, stop_in_order_when_terminated
from dragoman import scrape
from dragoman.stack import free_port

OURS = "Dragoman"
HOST = "127.0.0.1"
BEAMS = 5
SENTENCES = Path(__file__).with_name("sentences.tsv")
SOURCE, TARGET = "en", "ja"
PAY_SIZES, SLEEPS_S, NUM_REQ = (1, 16), (0.5, 0.1, 0.01), 100
PROXY_S = 60.0  # nginx's proxy_read_timeout, and the idle timeout of common load balancers
TIMEOUT_S = 300.0  # the longest that POST /translation waits
WARM_UP_S = 60.0
MOST_REQUESTS, MOST_RECORDS, MOST_S = 10_000, 1_000, 7_200


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    pay_size: int
    num_req: int
    sleep_s: float


@dataclass(frozen=True)
class Result:
    """What became of the requests of a cell; quantiles are those of the answered ones."""

    side: str
    cell: Cell
    succeeded: int
    in_proxy_time: int
    latencies_s: list[float]  # of right answers, sorted
    failures: dict[str, int]
    span_s: float  # from the first request to the last answer or failure
    cpu_s: float | None  # of the whole service meanwhile, if we started it
    engine: str  # that translated
    texts: list[str] = field(repr=False)  # of right answers, in the order of the requests

    def row(self) -> list[str]:
        ordered, sent = self.latencies_s, self.cell.num_req
        spread = ["–"] * 6
        if ordered:
            quantiles = [load.quantile(ordered, share) for share in (0.5, 0.95, 0.99)]
            values = [statistics.fmean(ordered), ordered[0], ordered[-1], *quantiles]
            spread = [report.shown(value) for value in values]
        failed = ", ".join(f"{count} × {kind}" for kind, count in self.failures.items())
        done = self.succeeded * self.cell.pay_size
        return [
            self.side,
            str(self.cell.pay_size),
            f"{self.cell.sleep_s:g} s",
            f"{100 * self.succeeded / sent:.0f}%",
            f"{100 * self.in_proxy_time / sent:.0f}%",
            *spread,
            f"{done / self.span_s:.1f}",
            "–" if self.cpu_s is None or not done else f"{1000 * self.cpu_s / done:.0f}",
            failed or "none",
        ]


HEADS = (
    *("service", "records", "every", "success", f"in {PROXY_S:g} s"),
    *("mean", "min", "max", "p50", "p95", "p99"),
    *("records/s", "CPU-ms/record", "failures"),
)


def sentences() -> list[str]:
    """English sentences of the shared sample."""
    rows = SENTENCES.read_text(encoding="utf-8").splitlines()
    fields = (row.split("\t") for row in rows if not row.startswith("#"))
    return list(dict.fromkeys(row[2] for row in fields if row[0] == SOURCE))


def requests(cell: Cell) -> list[load.Request]:
    """The same for every service. Sentences repeat only when all of them were sent."""
    texts = itertools.cycle(sentences())
    return [translation(list(itertools.islice(texts, cell.pay_size))) for _ in range(cell.num_req)]


def translation(texts: Sequence[str]) -> load.Request:
    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    payload = {"fromLang": SOURCE, "records": records, "toLang": TARGET}
    raw = load.message("POST", "/translation", {"payload": payload})
    return load.Request(raw, lambda status, body: wrong(status, body, len(texts)))


def wrong(status: int, body: bytes, count: int) -> str:
    """What is wrong with an answer; "" if nothing is."""
    if status != 200:
        return f"status {status}"
    result = json.loads(body)["result"]
    if [record["id"] for record in result] != [str(number) for number in range(count)]:
        return "wrong ids"
    return "" if all(record.get("text") for record in result) else "a record without text"


def measured(side: str, cell: Cell, service: "Service", timeout_s: float) -> Result:
    """Warms the service up and runs a cell against it."""
    where = load.address(service.url)
    asyncio.run(warm_up(where))
    engine = asyncio.run(engine_of(where)) if side.startswith(OURS) else baseline.ENGINE
    before_s = service.cpu_s()
    due_s = load.evenly(cell.num_req, cell.sleep_s)
    answers = asyncio.run(load.open_loop(where, requests(cell), due_s, timeout_s))
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


def judged(
    side: str,
    cell: Cell,
    answers: Sequence[load.Answer],
    cpu_s: float | None = None,
    engine: str = "",
) -> Result:
    right = [answer for answer in answers if not answer.failure]
    ends = [number * cell.sleep_s + answer.latency_s for number, answer in enumerate(answers)]
    return Result(
        side=side,
        cell=cell,
        succeeded=len(right),
        in_proxy_time=sum(answer.latency_s <= PROXY_S for answer in right),
        latencies_s=sorted(answer.latency_s for answer in right),
        failures=dict(Counter(answer.failure for answer in answers if answer.failure)),
        span_s=max(ends),
        cpu_s=cpu_s,
        engine=engine,
        texts=[one["text"] for answer in right for one in json.loads(answer.body)["result"]],
    )


async def warm_up(where: load.Address) -> None:
    """A request of each size, answered. Raises NotStarted."""
    clock = asyncio.get_running_loop().time
    end_s = clock() + WARM_UP_S
    for pay_size in (1, *PAY_SIZES):
        request = translation(sentences()[-pay_size:])
        while (await load.open_loop(where, [request], [0.0], WARM_UP_S))[0].failure:
            if clock() > end_s:
                raise NotStarted("the server answers, but does not translate")
            await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Service:
    """Something that translates at ``url``; ``server`` is its process if it is ours."""

    url: str
    server: Server | None = None

    def cpu_s(self) -> float:
        return sum(self.server.cpu_s().values()) if self.server else 0.0


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


def agreement(results: Sequence[Result]) -> str:
    """Whether the services translate alike, where all requests of a cell were answered."""
    by_cell: dict[Cell, list[Result]] = {}
    for result in results:
        if result.succeeded == result.cell.num_req:
            by_cell.setdefault(result.cell, []).append(result)
    pairs = [
        pair
        for ours, *others in by_cell.values()
        for other in others
        for pair in zip(ours.texts, other.texts, strict=True)
    ]
    if not pairs:
        return ""
    same = sum(one == other for one, other in pairs)
    return (
        f"Of {len(pairs):,} translations, {same:,} are the same text as the first service's for the"
        " same record."
    )


def told(results: Sequence[Result], options: argparse.Namespace, machine: str) -> str:
    """The report in Markdown."""
    engines = dict.fromkeys(f"{result.side}: {result.engine}" for result in results)
    parts = [
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
    names = sorted(name for name in os.environ if name.startswith("DRAGOMAN_"))
    return " ".join(f"{name}={os.environ[name]}" for name in names) or "default settings"


def draw(results: Sequence[Result], path: Path) -> None:
    """Success and latency of every cell as a picture. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(result.side for result in results))
    cells = list(dict.fromkeys(result.cell for result in results))
    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(9, 6.5), sharex=True, height_ratios=(2, 3)
    )
    width = 0.8 / len(names)
    for at, name in enumerate(names):
        own = {result.cell: result for result in results if result.side == name}
        places = [cells.index(cell) + (at - (len(names) - 1) / 2) * width for cell in own]
        shares = [100 * one.succeeded / one.cell.num_req for one in own.values()]
        early = [100 * one.in_proxy_time / one.cell.num_req for one in own.values()]
        bars = above.bar(places, early, width * 0.9, label=f"{name}, within {PROXY_S:g} s")
        above.bar(places, shares, width * 0.9, fill=False, edgecolor="gray", linestyle=":")
        above.bar_label(bars, [f"{share:.0f}" for share in early], fontsize=8)
        spread = [
            (place, one.latencies_s)
            for place, one in zip(places, own.values(), strict=True)
            if one.latencies_s
        ]
        color = bars.patches[0].get_facecolor()
        middles = [load.quantile(latencies, 0.5) for _, latencies in spread]
        tails = [load.quantile(latencies, 0.99) for _, latencies in spread]
        at_x = [place for place, _ in spread]
        below.vlines(at_x, middles, tails, color=color, linewidth=3)
        below.plot(at_x, middles, "o", color=color, label=f"{name}: median, line to p99")
    above.set_ylabel("answered, %\n(dotted: in time at all)")
    above.set_ylim(0, 112)
    above.legend(loc="lower left", bbox_to_anchor=(0, 1.01), ncols=len(names), frameon=False)
    below.set_yscale("log")
    below.set_ylabel("latency of the answered, s")
    below.grid(axis="y", alpha=0.3)
    below.axhline(PROXY_S, color="gray", linestyle=":")
    below.legend(loc="lower right", fontsize=8)
    labels = [
        f"{cell.pay_size} record{'s' * (cell.pay_size > 1)}\nevery {cell.sleep_s:g} s"
        for cell in cells
    ]
    below.set_xticks(range(len(cells)), labels)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(folder: Path, results: Sequence[Result], text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stress.md").write_text(text, encoding="utf-8")
    documents = [{k: v for k, v in asdict(one).items() if k != "texts"} for one in results]
    (folder / "stress.json").write_text(json.dumps(documents, indent=1), encoding="utf-8")
    try:
        draw(results, folder / "stress.png")
    except ImportError:
        print("no picture: pip install matplotlib", file=sys.stderr)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.stress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    add("--out", type=Path, default=Path("runs/stress"), help="folder of the report")
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
            print("  ".join(results[-1].row()), file=sys.stderr, flush=True)
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
