"""``benchmarks.memory``: what is sent, and what is told of it."""

from collections import Counter

import pytest

from benchmarks import memory
from benchmarks.workload import Text

TEXTS = [Text("en", "de", f"Sentence {rank}.", "") for rank in range(1, 6)]


def test_distinct_texts_repeat_only_when_there_are_no_more() -> None:
    assert memory.distinct(TEXTS, 3) == TEXTS[:3]
    assert Counter(memory.distinct(TEXTS, 10)) == dict.fromkeys(TEXTS, 2)


def test_texts_are_drawn_by_rank_and_every_time_alike() -> None:
    drawn = memory.drawn(TEXTS, 10_000)
    assert drawn == memory.drawn(TEXTS, 10_000)
    counts = Counter(drawn)
    for rank, text in enumerate(TEXTS, 1):
        assert counts[text] / counts[TEXTS[0]] == pytest.approx(1 / rank, rel=0.1)


def test_a_request_asks_for_details_of_one_text() -> None:
    request = memory.request(TEXTS[0])
    assert request.raw.startswith(b"POST /translation?details=true ")
    assert "Sentence 1." in request.raw.decode()
    assert request.reject(200, b'{"result":[{"id":"0","text":"Satz 1."}]}') == ""
    assert request.reject(503, b"") == "status 503"


def test_what_neither_came_from_memory_nor_waited_was_in_the_engine() -> None:
    run = memory.Run(12.34, [1.0, 2.0, 30.0], cached=0.5, coalesced=0.25)
    assert memory.row("drawn", True, run) == [
        *("drawn", "on", "12.3", "2", "30", "50%", "25%", "25%"),
    ]


@pytest.mark.parametrize("flag", ["--texts", "--requests", "--connections"])
def test_usage(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        memory.parsed([flag, "0"])
    assert "must be at least 1" in capsys.readouterr().err
