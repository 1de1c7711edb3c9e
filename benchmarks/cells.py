"""The cells of the stress test: what became of the requests of each, as rows and as a picture."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import load, report

PROXY_S = 60.0  # nginx's proxy_read_timeout, and the idle timeout of common load balancers


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
