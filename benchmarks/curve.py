"""Latency over throughput: the points of the curve, as tables and as a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load, report

SHARES = (0.5, 0.9, 0.95, 0.99)
QUANTILES = tuple(f"P{100 * share:.0f}" for share in SHARES)


@dataclass(frozen=True)
class Side:
    """Latencies in milliseconds, sorted."""

    latencies_ms: list[float]

    @classmethod
    def of(cls, latencies_s: Sequence[float]) -> "Side":
        return cls(sorted(1000 * latency for latency in latencies_s))

    def quantiles(self) -> list[float]:
        return [load.quantile(self.latencies_ms, share) for share in SHARES]


@dataclass(frozen=True)
class Point:
    """One load on both sides."""

    load: float  # of what the bare engine does when it is full
    rate: float  # requests a second
    alone: Side
    service: Side

    def added_ms(self) -> list[float]:
        pairs = zip(self.service.quantiles(), self.alone.quantiles(), strict=True)
        return [through - alone for through, alone in pairs]


def quoted_table(point: Point) -> str:
    rows = [
        [name, *(f"{value:.1f}" for value in values)]
        for name, values in (
            ("bare engine", point.alone.quantiles()),
            ("through HTTP and Redis", point.service.quantiles()),
            ("**added**", point.added_ms()),
        )
    ]
    return report.table(["ms", *QUANTILES], rows)


def curve_table(points: Sequence[Point]) -> str:
    heads = ["load", "requests/s", *(f"bare {name}" for name in QUANTILES), *QUANTILES]
    rows = [
        [
            f"{100 * point.load:.0f}%",
            f"{point.rate:.1f}",
            *(f"{value:.0f}" for value in (*point.alone.quantiles(), *point.service.quantiles())),
        ]
        for point in points
    ]
    return report.table(heads, rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """Latency over throughput as a picture. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    rates = [point.rate for point in points]
    for at, name in enumerate(QUANTILES):
        color = f"C{at}"
        through = [point.service.quantiles()[at] for point in points]
        by_itself = [point.alone.quantiles()[at] for point in points]
        axes.plot(rates, through, "o-", color=color, label=f"{name} through HTTP and Redis")
        axes.plot(rates, by_itself, "x:", color=color, label=f"{name} of the bare engine")
    axes.set_yscale("log")
    labels = [f"{point.rate:.0f}\n{100 * point.load:.0f} %" for point in points]
    axes.set_xticks(rates, labels)
    axes.set_xlabel("requests a second (Poisson arrivals), and % of what the engine does when full")
    axes.set_ylabel("latency from when a request was due, ms")
    axes.set_xlim(left=0)
    axes.grid(which="both", alpha=0.25)
    axes.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
