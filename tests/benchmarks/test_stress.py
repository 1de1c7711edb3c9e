"""The stress test: what it sends, what counts as success, and a run against a real app."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import load, stress
from benchmarks.cells import HEADS, Cell, agreement, draw, judged
from benchmarks.requests import batches, wrong
from benchmarks.stress import parsed
from broker.settings import BrokerSettings
from tests.api.stage import Worker, api_process

ROOT = Path(__file__).parents[2]


def payload(request: load.Request) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(request.raw.partition(b"\r\n\r\n")[2])["payload"]
    return document


def answered(texts: list[str], latency_s: float) -> load.Answer:
    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    return load.Answer(latency_s, "", json.dumps({"result": records}).encode())


def test_requests_are_the_same_each_time_and_repeat_no_sentence_early() -> None:
    sent = [payload(request) for request in batches(10, 16)]
    assert sent == [payload(request) for request in batches(10, 16)]
    texts = [record["text"] for one in sent for record in one["records"]]
    assert len(texts) == len(set(texts)) == 160
    assert {(one["fromLang"], one["toLang"]) for one in sent} == {("en", "ja")}


@pytest.mark.parametrize(
    ("status", "result", "verdict"),
    [
        (200, [{"id": "0", "text": "a"}, {"id": "1", "text": "b"}], ""),
        (503, [], "status 503"),
        (200, [{"id": "1", "text": "a"}, {"id": "0", "text": "b"}], "wrong ids"),
        (200, [{"id": "0", "text": "a"}], "wrong ids"),
        (200, [{"id": "0", "text": "a"}, {"id": "1", "error": {}}], "a record without text"),
        (200, [{"id": "0", "text": "a"}, {"id": "1", "text": ""}], "a record without text"),
    ],
)
def test_what_counts_as_success(status: int, result: list[Any], verdict: str) -> None:
    assert wrong(status, json.dumps({"result": result}).encode(), 2) == verdict


def test_figures() -> None:
    answers = [
        answered(["a"], 1.0),
        answered(["b"], 2.0),
        answered(["c"], 70.0),
        load.Answer(300.0, load.TIMED_OUT),
    ]
    result = judged("Dragoman", Cell(1, 4, 0.5), answers, cpu_s=0.6)
    assert result.row() == [
        *("Dragoman", "1", "0.5 s", "75%", "50%"),
        *("24.3", "1.00", "70.0", "2.00", "70.0", "70.0"),
        *("0.0", "200", "1 × timeout"),
    ]
    assert len(HEADS) == len(result.row())


def test_nothing_was_answered() -> None:
    result = judged("Dragoman", Cell(1, 1, 0.5), [load.Answer(300.0, load.TIMED_OUT)])
    assert result.row()[3:11] == ["0%", "0%", *["–"] * 6]


def test_agreement_is_counted_where_all_was_answered() -> None:
    cell = Cell(1, 2, 0.5)
    ours = judged("Dragoman", cell, [answered(["a"], 1.0), answered(["b"], 1.0)])
    theirs = judged("in-process", cell, [answered(["a"], 1.0), answered(["x"], 1.0)])
    assert agreement([ours, theirs]).startswith("Of 2 translations, 1 are the same")
    assert agreement([ours]) == ""


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cells = [Cell(1, 1, 0.5), Cell(16, 1, 0.01)]
    results = [
        judged(side, cell, [answered(["a"], 0.2)] if cell.pay_size == 1 else [lost])
        for cell in cells
        for side in ("Dragoman", "in-process")
        for lost in [load.Answer(300.0, load.TIMED_OUT)]
    ]
    draw(results, tmp_path / "stress.png")
    assert (tmp_path / "stress.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--num-req", "0"],
        ["--pay-size", "1001"],
        ["--sleep", "-1"],
        ["--num-req", "10000", "--sleep", "60"],
        ["--workers", "0"],
        ["--url", "http://example.org"],
        ["--url", "http://127.0.0.1:9527", "--baseline"],
    ],
)
def test_what_would_not_end_or_leave_the_machine_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parsed(arguments)
    assert end.value.code == 2


def test_the_grid_is_that_of_the_issue() -> None:
    cells = stress.cells(parsed(["--grid"]))
    assert cells == [Cell(pay, 100, every) for pay in (1, 16) for every in (0.5, 0.1, 0.01)]
    assert list(stress.sides(parsed(["--workers", "1", "2", "--baseline"]))) == [
        *("Dragoman, 1 worker", "Dragoman, 2 workers", "in-process")
    ]


@pytest.fixture
def url(broker_settings: BrokerSettings) -> Iterator[str]:
    """A real API with a worker that turns texts around."""
    with Worker(broker_settings), api_process(broker_settings.redis_url) as process:
        yield process.url


@pytest.mark.slow
def test_a_run_against_a_running_server(url: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.stress", "--url", url, "--out", str(tmp_path)),
            *("--pay-size", "3", "--num-req", "10", "--sleep", "0.01", "--timeout-s", "30"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    assert "| Dragoman |       3 | 0.01 s |    100% |    100% |" in run.stdout
    (document,) = json.loads((tmp_path / "stress.json").read_text())
    assert document["succeeded"] == 10
    assert (tmp_path / "stress.md").read_text(encoding="utf-8") in run.stdout
