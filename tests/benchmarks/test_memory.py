"""``benchmarks.memory``: what is sent, and what is told of it."""

import json
from collections import Counter

import pytest

from benchmarks import load, memory, stacks
from benchmarks.workload import Text

TEXTS = [Text("en", "de", f"Sentence {rank}.", "") for rank in range(1, 6)]


def test_distinct_texts_never_repeat() -> None:
    texts = memory.everything()
    assert texts == memory.everything()
    keys = {(text.source_language, text.target_language, text.source) for text in texts}
    assert len(keys) == len(texts) > 1_500


def test_texts_are_drawn_by_rank_and_every_time_alike() -> None:
    drawn = memory.drawn(TEXTS, 10_000)
    assert drawn == memory.drawn(TEXTS, 10_000)
    counts = Counter(drawn)
    for rank, text in enumerate(TEXTS, 1):
        assert counts[text] / counts[TEXTS[0]] == pytest.approx(1 / rank, rel=0.1)


def answered(latency_s: float, **details: int) -> load.Answer:
    record = {"id": "0", "text": "Satz.", "cached": 0, "coalesced": 0, **details}
    return load.Answer(latency_s, "", json.dumps({"result": [record]}).encode())


def test_rounds_add_up_and_what_was_not_in_memory_was_in_the_engine() -> None:
    off, on = memory.Side(), memory.Side()
    for _ in range(2):
        off.add([answered(0.1, sentences=2), answered(0.3, sentences=2)], 2.0, 0.02)
    on.add([answered(0.002, sentences=3, cached=3)], 0.5, 0.001)
    on.add([answered(0.03, sentences=3, coalesced=1)], 0.5, 0.011)
    assert memory.rows("drawn", off, on) == [
        ["drawn", "off", "2.0", "–", "100", "300", "5.0", "0%", "0%", "100%"],
        ["drawn", "on", "6.0", "3.00", "2", "30", "2.0", "50%", "17%", "33%"],
    ]


def test_the_report_is_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[bool, list[Text]]] = []

    def note(side: memory.Side, texts: list[Text], connections: int, on: bool) -> None:
        measured.append((on, texts))
        side.add([answered(0.1, sentences=1)] * len(texts), 1.0, 0.01)

    monkeypatch.setattr(memory, "measure", note)
    text = memory.told(memory.parsed(["--requests", "5", "--texts", "3"]), "a machine")
    assert [on for on, _ in measured] == [False, True, False, True, True, False, True, False]
    assert all(len(texts) == 5 for _, texts in measured)
    assert text.count("| by Zipf's law |") == 2
    assert text.endswith("\n\na machine.\n")


@pytest.mark.slow
def test_a_small_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "worker_of", lambda model: stacks.paced(0.0, 16).worker)
    on, texts = memory.Side(), TEXTS[:2] * 8
    memory.measure(on, texts, connections=2, memory=True)
    assert on.sentences == 16
    assert on.cached + on.coalesced == 14


def test_more_texts_than_there_are_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        memory.parsed(["--requests", "10000"])
    assert "different texts" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--texts", "--requests", "--connections", "--rounds"])
def test_usage(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        memory.parsed([flag, "0"])
    assert "must be at least 1" in capsys.readouterr().err
