"""What this tier counts and what the broker reports, for Prometheus.

Several processes behind one port add up their counts through files in ``directory`` (the
multiprocess mode of prometheus_client, which ``__main__`` switches on before that package loads);
what the broker reports is read when asked for, so that each process answers the same.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from broker.wire import Load, Submission, WorkerEntry

METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
# Seconds; interactive sentences take tens of milliseconds, long waits end at 300.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


# One series more for each of ours, and none in multiprocess mode.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The counters of one process."""

    def __init__(self, directory: str = "") -> None:
        self._directory = directory
        self._registry = CollectorRegistry()
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        registry = None if directory else self._registry
        self.requests = Counter(
            "dragoman_http_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "dragoman_http_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ("route",),
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "dragoman_http_requests_in_flight",
            "HTTP requests being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.records = Counter(
            "dragoman_records_accepted",
            "Records handed to the broker.",
            ("lane",),
            registry=registry,
        )
        self.characters = Counter(
            "dragoman_characters_accepted",
            "Characters of text handed to the broker.",
            ("lane",),
            registry=registry,
        )
        self.joined = Counter(
            "dragoman_requests_joined",
            "Requests that waited for an identical one in flight.",
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request that has been answered."""
        key = (method if method in METHODS else "OTHER", route, status)
        found = self._series.get(key)
        if found is None:  # looking up labels costs more than counting
            counter = self.requests.labels(key[0], route, str(status))
            found = self._series[key] = counter, self.seconds.labels(route)
        found[0].inc()
        found[1].observe(seconds)

    def accepted(self, submission: Submission) -> None:
        """Counts a request that the broker took."""
        self.records.labels(submission.lane).inc(len(submission.texts))
        self.characters.labels(submission.lane).inc(sum(map(len, submission.texts)))

    def render(self, load: Load | None, workers: Sequence[WorkerEntry] = ()) -> bytes:
        """The exposition text; ``load`` is None while the broker does not answer."""
        gauges = CollectorRegistry()
        gauges.register(BrokerGauges(load))
        gauges.register(WorkerGauges(workers))
        counts = self._registry
        if self._directory:
            self._bury_the_dead()
            counts = CollectorRegistry()
            MultiProcessCollector(counts, self._directory)  # type: ignore[no-untyped-call]
        return generate_latest(counts) + generate_latest(gauges)

    def _bury_the_dead(self) -> None:
        """Drops the live gauges of processes that are gone, which would count for ever."""
        for path in Path(self._directory).glob("gauge_live*.db"):
            process = int(path.stem.rpartition("_")[2])
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                with contextlib.suppress(FileNotFoundError):  # another process was quicker
                    mark_process_dead(process, self._directory)  # type: ignore[no-untyped-call]
            except PermissionError:
                continue


class BrokerGauges(Collector):
    """The state of the broker as one answer to one scrape."""

    def __init__(self, load: Load | None) -> None:
        self._load = load

    def collect(self) -> Iterator[Metric]:
        load = self._load
        yield _gauge("broker_up", "1 while Redis answers.", 0 if load is None else 1)
        if load is None:
            return
        lanes = GaugeMetricFamily(
            "dragoman_outstanding_characters", "Characters queued or running.", labels=["lane"]
        )
        for lane, cost in load.cost_by_lane.items():
            lanes.add_metric([lane], cost)
        yield lanes
        yield _gauge("ready_records", "Records in the ready window.", load.ready)
        yield _gauge("backlog_records", "Records behind the ready window.", load.backlog)
        yield _gauge("workers", "Live workers of the model.", load.workers)
        yield _gauge("dead_letters", "Records that were given up.", load.dead_letters)
        if load.drain_rate is not None:
            yield _gauge(
                "drain_rate_characters_per_second", "Measured drain rate.", load.drain_rate
            )
            if load.drain_rate > 0:
                yield _gauge(
                    "estimated_wait_seconds",
                    "Outstanding characters over the drain rate: scale on this.",
                    load.outstanding_cost / load.drain_rate,
                )


class WorkerGauges(Collector):
    """The live workers as their last heartbeats describe them."""

    def __init__(self, workers: Sequence[WorkerEntry]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "dragoman_worker_info",
            "A live worker, always 1.",
            labels=["worker", "model", "device", "engine"],
        )
        slots = _by_worker("slots", "Sentences the engine holds at once.")
        rate = _by_worker("rate_characters_per_second", "Its own rate while it is busy.")
        busy = _by_worker("busy_ratio", "The share of its last heartbeat that its engine worked.")
        completed = _by_worker("completed_records", "Records since it started.")
        sentences = _by_worker("completed_sentences", "Sentences of those records.")
        cached = _by_worker("cached_sentences", "Of them, taken from the translation memory.")
        coalesced = _by_worker("coalesced_sentences", "Of them, translated with an equal one.")
        warnings = GaugeMetricFamily(
            "dragoman_worker_warned_records",
            "Of the records, those with a warning of that code.",
            labels=["worker", "code"],
        )
        started = _by_worker("start_time_seconds", "When it started, seconds since the epoch.")
        seen = _by_worker("seen_time_seconds", "Its last heartbeat, seconds since the epoch.")
        for worker in self._workers:
            info.add_metric([worker.id, worker.model, worker.device, worker.engine], 1)
            slots.add_metric([worker.id], worker.slots)
            rate.add_metric([worker.id], worker.rate)
            busy.add_metric([worker.id], worker.busy)
            completed.add_metric([worker.id], worker.completed)
            sentences.add_metric([worker.id], worker.sentences)
            cached.add_metric([worker.id], worker.cached)
            coalesced.add_metric([worker.id], worker.coalesced)
            for code, records in sorted(worker.warnings.items()):
                warnings.add_metric([worker.id, code], records)
            started.add_metric([worker.id], worker.started_ms / 1000)
            seen.add_metric([worker.id], worker.seen_ms / 1000)
        yield from (info, slots, rate, busy, completed, started, seen)
        yield from (sentences, cached, coalesced, warnings)


def _by_worker(name: str, help: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dragoman_worker_{name}", help, labels=["worker"])


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(f"dragoman_{name}", help, value)
