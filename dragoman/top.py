"""``dragoman top``: what a running server is doing, drawn again and again. It asks ``GET /metrics``
and nothing else, so that it works from wherever the API can be reached."""

import time
from collections import deque
from collections.abc import Callable

import httpx
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dragoman import scrape
from dragoman.client import with_key
from dragoman.errors import DragomanError
from dragoman.scrape import Reading

LANES = ("interactive", "bulk")
WINDOW_S = 10.0  # rates are those of the last so many seconds
ONCE_S = 1.0  # between the two readings of a single frame
STALE_S = 12.0  # a heartbeat is due every 5 s; two missing are worth a colour
NOTHING = "–"


class Top:
    """The readings of one server, and the frame they make."""

    def __init__(self, client: httpx.Client, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._readings: deque[Reading] = deque()
        self._trouble = ""

    def read(self) -> None:
        """Asks the server. Raises DragomanError if it never answered; later a server that is away
        is something to show."""
        try:
            reading = scrape.read(self._client, self._clock)
        except DragomanError as error:
            if not self._readings:
                raise
            self._trouble = str(error)
            return
        self._trouble = ""
        self._readings.append(reading)
        while len(self._readings) > 2 and reading.taken_s - self._readings[1].taken_s >= WINDOW_S:
            self._readings.popleft()

    def frame(self) -> RenderableType:
        """What is known now."""
        before, after = self._readings[0], self._readings[-1]
        parts: list[RenderableType] = [self._headline(after)]
        if after.broker_up:
            parts += [queue(before, after), workers(after)]
        parts.append(api(before, after))
        return Group(*parts)

    def _headline(self, reading: Reading) -> Text:
        line = Text.assemble("Dragoman on ", (str(self._client.base_url), "bold"))
        if models := sorted({worker.model for worker in reading.workers}):
            line.append(f", model {', '.join(models)}")
        if self._trouble:
            age_s = self._clock() - reading.taken_s
            line.append(f"\n{self._trouble}; this is {age_s:.0f} s old", "bold red")
        elif not reading.broker_up:
            line.append("\nThe API does not reach Redis: nothing is accepted", "bold red")
        elif not reading.workers and outstanding(reading) > 0:
            line.append("\nWork waits and no worker is alive", "bold red")
        return line


def outstanding(reading: Reading) -> float:
    """Characters that are queued or in a worker."""
    return reading.total("dragoman_outstanding_characters")


def queue(before: Reading, after: Reading) -> Table:
    """What waits, and for how long."""
    table = _table("Queue", "lane", "characters outstanding", "records accepted/s")
    for lane in LANES:
        cost = after.value("dragoman_outstanding_characters", lane=lane) or 0.0
        table.add_row(lane, f"{cost:,.0f}", _rate(scrape.accepted(before, after, lane)))
    dead = after.value("dragoman_dead_letters") or 0.0
    wait_s = after.value("dragoman_estimated_wait_seconds")
    drain = after.value("dragoman_drain_rate_characters_per_second")
    lines = (
        ("in the ready window", f"{after.value('dragoman_ready_records') or 0:,.0f} records"),
        ("behind it (backlog)", f"{after.value('dragoman_backlog_records') or 0:,.0f} records"),
        ("drain rate", NOTHING if drain is None else f"{drain:,.0f} characters/s"),
        ("estimated wait", NOTHING if wait_s is None else duration(wait_s)),
        ("dead letters", f"[red]{dead:,.0f}[/red]" if dead else "0"),
    )
    table.add_section()
    for name, value in lines:
        table.add_row(name, value, "")
    return table


def workers(reading: Reading) -> Table:
    """The live workers, in the order of their ids."""
    found = sorted(reading.workers, key=lambda worker: worker.id)
    table = _table(
        f"Workers: {len(found)}",
        *("worker", "device", "engine", "busy", "chars/s", "records", "up", "seen"),
    )
    for worker in found:
        seen = duration(worker.seen_s)
        table.add_row(
            worker.id,
            worker.device,
            worker.engine,
            f"{worker.busy:.0%}",
            f"{worker.rate:,.0f}" if worker.rate else NOTHING,
            f"{worker.completed:,}",
            duration(worker.started_s),
            f"[red]{seen}[/red]" if worker.seen_s > STALE_S else seen,
        )
    return table


def api(before: Reading, after: Reading) -> Table:
    """Requests by route over the last seconds."""
    in_flight = after.total("dragoman_http_requests_in_flight")
    table = _table(
        f"API: {max(0.0, in_flight - 1):,.0f} requests in flight",  # less the one that asked
        *("route", "requests/s", "5xx/s", "mean"),
    )
    for one in scrape.traffic(before, after):
        errors = _rate(one.errors)
        table.add_row(
            one.route,
            _rate(one.requests),
            f"[red]{errors}[/red]" if one.errors else errors,
            NOTHING if one.mean_s is None else duration(one.mean_s),
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(first, no_wrap=True, overflow="ellipsis")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _rate(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Short, at most two units: 31 ms, 4.2 s, 3m 05s, 2h 10m, 3d 4h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest_s:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02}m"
    return f"{hours // 24}d {hours % 24}h"


def run(
    url: str, interval_s: float, once: bool, key: str = "", console: Console | None = None
) -> None:
    """Draws until Ctrl-C; a single frame if ``once`` or if nobody watches. Raises DragomanError
    when the server does not answer at the start."""
    console = console or Console()
    with httpx.Client(base_url=url, headers=with_key(None, key)) as client:
        top = Top(client)
        try:
            top.read()
            if once or not console.is_terminal:
                time.sleep(ONCE_S)
                top.read()
                console.print(top.frame())
                return
            with Live(top.frame(), console=console, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(interval_s)
                    top.read()
                    live.update(top.frame(), refresh=True)
        except KeyboardInterrupt:
            return
