"""``dragoman top``: what it reads, what it draws, and how it ends. Against the real metrics of the
API, and against a server that comes and goes."""

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from rich.console import Console

from api.metrics import Metrics
from broker.wire import Load, Submission, WorkerEntry
from dragoman import scrape
from dragoman.errors import ServerUnreachable, UnexpectedAnswer
from dragoman.top import Top, duration, run
from tests.dragoman.fake_service import FakeService, Scripted

Wait = Callable[..., Any]
NOON = "Sun, 22 Nov 2026 12:00:00 GMT"
NOON_MS = 1_795_348_800_000
LOAD = Load(
    outstanding_cost=1_500,
    cost_by_lane={"interactive": 500, "bulk": 1_000},
    drain_rate=300.0,
    ready=16,
    backlog=1_234,
    workers=1,
    dead_letters=2,
)
WORKER = WorkerEntry(
    id='w-22687-28ef"4a8',
    model="small",
    device="cpu",
    engine="continuous",
    slots=64,
    rate=800.0,
    completed=4_321,
    started_ms=NOON_MS - 3_700_000,
    seen_ms=NOON_MS - 2_000,
    busy=0.974,
)


class Api:
    """The answers of an API whose clock stands at noon."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.load: Load | None = LOAD
        self.workers = [WORKER]
        self.away = False
        self.now_s = 0.0
        self.http = httpx.Client(transport=httpx.MockTransport(self._answer), base_url="http://api")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("Connection refused", request=request)
        text = self.metrics.render(self.load, self.workers)
        return httpx.Response(200, content=text, headers={"Date": NOON})

    def top(self) -> Top:
        return Top(self.http, lambda: self.now_s)


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    with made.http:
        yield made


def drawn(top: Top) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(top.frame())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, first: str) -> list[str]:
    """The cells of the line that begins with ``first``."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(first)]
    return line.replace(first, "", 1).split()


def submission(count: int) -> Submission:
    texts = ["x"] * count
    return Submission(
        "id", "default", "small", "bulk", "en", "ja", list(range(count)), texts, 60_000
    )


def test_a_frame_fits_a_terminal_and_tells_all(api: Api) -> None:
    top = api.top()
    top.read()
    for number in range(20):
        api.metrics.observe("POST", "/translation", 503 if number < 5 else 200, 0.25)
    api.metrics.observe("GET", "/metrics", 200, 0.01)
    api.metrics.accepted(submission(30))
    api.now_s = 10.0
    top.read()
    text = drawn(top)
    assert "http://api, model small" in text
    assert row(text, "interactive") == ["500", "0.0"]
    assert row(text, "bulk") == ["1,000", "3.0"]
    assert row(text, "in the ready window") == ["16", "records"]
    assert row(text, "behind it (backlog)") == ["1,234", "records"]
    assert row(text, "drain rate") == ["300", "characters/s"]
    assert row(text, "estimated wait") == ["5.0", "s"]
    assert row(text, "dead letters") == ["2"]
    cells = row(text, WORKER.id)
    assert cells[:5] == ["cpu", "continuous", "97%", "800", "4,321"]
    assert " ".join(cells[5:]) == "1h 01m 2.0 s"
    assert row(text, "/translation") == ["2.0", "0.5", "250", "ms"]
    assert "/metrics" not in text


def test_rates_are_those_of_the_last_seconds(api: Api) -> None:
    top = api.top()
    api.metrics.observe("GET", "/jobs/{id}", 200, 0.1)
    for second in range(0, 60, 2):
        api.now_s = float(second)
        top.read()
    assert row(drawn(top), "/jobs/{id}") == ["0.0", "0.0", "–"]


def test_a_restarted_server_has_no_negative_rates(api: Api) -> None:
    top = api.top()
    api.metrics.observe("GET", "/readyz", 200, 0.1)
    api.metrics.accepted(submission(3))
    top.read()
    api.metrics = Metrics()
    api.metrics.observe("GET", "/languages", 200, 0.1)
    api.now_s = 1.0
    top.read()
    text = drawn(top)
    assert row(text, "bulk")[-1] == "–"
    assert row(text, "/languages")[0] == "1.0"


def test_redis_is_away(api: Api) -> None:
    top = api.top()
    api.load, api.workers = None, []
    top.read()
    text = drawn(top)
    assert "The API does not reach Redis" in text
    assert "Workers" not in text


def test_no_worker_is_alive(api: Api) -> None:
    top = api.top()
    api.workers = []
    top.read()
    assert "Work waits and no worker is alive" in drawn(top)


def test_a_server_that_goes_away_leaves_the_last_frame(api: Api) -> None:
    top = api.top()
    api.away = True
    with pytest.raises(ServerUnreachable, match="no answer from http://api"):
        top.read()
    api.away = False
    top.read()
    api.away, api.now_s = True, 7.0
    top.read()
    text = drawn(top)
    assert "Connection refused; this is 7 s old" in text
    assert row(text, "dead letters") == ["2"]
    api.away = False
    top.read()
    assert "Connection refused" not in drawn(top)


def test_something_else_listens_there(service: FakeService) -> None:
    with pytest.raises(UnexpectedAnswer, match="answered with status 404"):
        run(service.url, 1.0, once=True)


def test_label_values_are_unescaped() -> None:
    series = scrape.parse('# HELP a b\na{x="1\\"2\\\\3\\n4",y=""} 1.5e+03\nb +Inf\nnot a sample\n')
    assert series == {"a": [({"x": '1"2\\3\n4', "y": ""}, 1500.0)], "b": [({}, float("inf"))]}


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0311, "31 ms"),
        (4.2, "4.2 s"),
        (185, "3m 05s"),
        (7_800, "2h 10m"),
        (273_600, "3d 4h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@contextmanager
def watched(url: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``dragoman top`` on a terminal, and the other end of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dragoman", "top", "--interval", "0.1", "--url", url],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        yield process, ours
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def test_ctrl_c_ends_it_cleanly(service: FakeService, wait_until: Wait) -> None:
    service.script.extend([Scripted(200, Metrics().render(LOAD, [WORKER]))] * 1_000)
    seen = bytearray()

    def frames() -> bool:
        try:
            seen.extend(os.read(terminal, 65_536))
        except BlockingIOError:
            return False
        return seen.count(b"dead letters") >= 2

    with watched(service.url) as (process, terminal):
        wait_until(frames, description="two frames are drawn")
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_the_command_without_a_server() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "dragoman", "top", "--once", "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 1
    assert found.stderr.startswith("dragoman: no answer from http://127.0.0.1:9")
    assert found.stdout == ""
