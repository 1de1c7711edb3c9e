"""Readings of a server's ``GET /metrics``, and what two of them tell of the time in between."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from dragoman.errors import ServerUnreachable, UnexpectedAnswer

TIMEOUT_S = 5.0
REQUESTS, SECONDS = "dragoman_http_requests_total", "dragoman_http_request_seconds"
OWN_ROUTE = "/metrics"  # asking must not count as traffic

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: -?\d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")

Labels = Mapping[str, str]
Series = dict[str, list[tuple[Labels, float]]]


@dataclass(frozen=True)
class Worker:
    """A live worker; ``seen_s`` and ``started_s`` are ages."""

    id: str
    model: str
    device: str
    engine: str
    rate: float  # characters a second while it is busy
    busy: float  # share of its last heartbeat that its engine worked, from 0 to 1
    completed: int
    started_s: float
    seen_s: float


@dataclass(frozen=True)
class Reading:
    """One answer of the server."""

    series: Series
    taken_s: float  # on our clock, for differences
    now_s: float  # on the server's, for ages

    def value(self, name: str, **labels: str) -> float | None:
        """The one series of that name and these labels; None if there is none."""
        for found, value in self.series.get(name, ()):
            if found == labels:
                return value
        return None

    def total(self, name: str, wanted: Callable[[Labels], bool] = lambda labels: True) -> float:
        """The sum over all series of that name with wanted labels."""
        return sum(value for labels, value in self.series.get(name, ()) if wanted(labels))

    @property
    def broker_up(self) -> bool:
        return self.value("dragoman_broker_up") == 1

    @property
    def workers(self) -> list[Worker]:
        return [self._worker(labels) for labels, _ in self.series.get("dragoman_worker_info", ())]

    def _worker(self, labels: Labels) -> Worker:
        def of(name: str) -> float:
            return self.value(f"dragoman_worker_{name}", worker=labels["worker"]) or 0.0

        return Worker(
            id=labels["worker"],
            model=labels["model"],
            device=labels["device"],
            engine=labels["engine"],
            rate=of("rate_characters_per_second"),
            busy=of("busy_ratio"),
            completed=int(of("completed_records")),
            started_s=max(0.0, self.now_s - of("start_time_seconds")),
            seen_s=max(0.0, self.now_s - of("seen_time_seconds")),
        )


@dataclass(frozen=True)
class Traffic:
    """What the API did on one route between two readings."""

    route: str
    requests: float  # a second
    errors: float  # of them with a 5xx status
    mean_s: float | None  # None: none was answered


def traffic(before: Reading, after: Reading) -> list[Traffic]:
    """The routes that were ever asked, busiest first."""
    names = {labels["route"] for labels, _ in after.series.get(REQUESTS, ())} - {OWN_ROUTE}
    found = [one for name in sorted(names) if (one := _traffic(name, before, after)) is not None]
    return sorted(found, key=lambda one: -one.requests)


def _traffic(route: str, before: Reading, after: Reading) -> Traffic | None:
    """None if a count went down: then the server was started again in between."""

    def here(labels: Labels) -> bool:
        return labels["route"] == route

    def failed(labels: Labels) -> bool:
        return here(labels) and labels["status"].startswith("5")

    def grown(name: str, wanted: Callable[[Labels], bool]) -> float:
        return after.total(name, wanted) - before.total(name, wanted)

    requests, errors = grown(REQUESTS, here), grown(REQUESTS, failed)
    answered, spent_s = grown(f"{SECONDS}_count", here), grown(f"{SECONDS}_sum", here)
    if min(requests, errors, answered) < 0:
        return None
    elapsed_s = _elapsed_s(before, after)
    mean_s = spent_s / answered if answered else None
    return Traffic(route, requests / elapsed_s, errors / elapsed_s, mean_s)


def _elapsed_s(before: Reading, after: Reading) -> float:
    return max(1e-3, after.taken_s - before.taken_s)


def accepted(before: Reading, after: Reading, lane: str) -> float | None:
    """Records a second that a lane took; None across a restart."""
    name = "dragoman_records_accepted_total"
    grown = (after.value(name, lane=lane) or 0.0) - (before.value(name, lane=lane) or 0.0)
    return None if grown < 0 else grown / _elapsed_s(before, after)


def read(client: httpx.Client, clock: Callable[[], float]) -> Reading:
    """Asks once. Raises ServerUnreachable, UnexpectedAnswer."""
    try:
        answer = client.get("/metrics", timeout=TIMEOUT_S)
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise ServerUnreachable(f"no answer from {client.base_url}: {reason}") from error
    if answer.status_code != 200:
        raise UnexpectedAnswer(
            f"{client.base_url} answered with status {answer.status_code} to GET /metrics"
        )
    series = parse(answer.text)
    if "dragoman_broker_up" not in series:
        raise UnexpectedAnswer(f"what listens on {client.base_url} is not Dragoman")
    try:
        now_s = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        raise UnexpectedAnswer(f"{client.base_url} does not tell the date") from None
    return Reading(series, clock(), now_s)


def parse(text: str) -> Series:
    """The samples of a Prometheus exposition by name; lines that are none are left out."""
    series: Series = {}
    for name, labels, value in _samples(text.splitlines()):
        series.setdefault(name, []).append((labels, value))
    return series


def _samples(lines: Sequence[str]) -> Iterator[tuple[str, Labels, float]]:
    for line in lines:
        match = _SAMPLE.fullmatch(line.strip())
        if match is None:
            continue
        labels = {
            name: _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], value)
            for name, value in _LABEL.findall(match[2] or "")
        }
        try:
            yield match[1], labels, float(match[3])
        except ValueError:
            continue
