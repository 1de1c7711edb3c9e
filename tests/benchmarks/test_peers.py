"""The peers: what they are asked, how their answers are judged, and the model they share."""

import json
from pathlib import Path

import ctranslate2
import pytest
import sentencepiece

from benchmarks import argos, load, peers, report, services
from benchmarks.peers import Found
from benchmarks.servers import NotStarted
from benchmarks.services import PEERS, Given
from benchmarks.workload import SMALL
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.ctranslate.engine import open_ctranslate
from inference_worker.engine.protocol import Sentence
from inference_worker.tokens import Vocabulary

GIVEN = Given(threads=1, patience_s=5.0, cache=Path("cache"))
BY_NAME = {peer.name: peer for peer in PEERS}


def test_all_are_asked_for_the_same() -> None:
    for peer in PEERS:
        raw = peer.ask(GIVEN)("Good morning.").raw.decode()
        assert "Good morning." in raw
        assert ("X-Deadline-Ms: 5000\r\n" in raw) == (peer.name == "dragoman")


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("dragoman", {"result": [{"id": "0", "text": "はい"}]}, "はい"),
        ("litserve-generate", {"text": "はい"}, "はい"),
        ("libretranslate", {"translatedText": "はい"}, "はい"),
    ],
)
def test_answers(name: str, body: object, text: str) -> None:
    request = BY_NAME[name].ask(GIVEN)("Yes.")
    raw = json.dumps(body).encode()
    assert request.reject(200, raw) == ""
    assert request.reject(503, b"{}") == "status 503"
    assert services.text_of(raw) == text


OVERLOAD = [
    load.Answer(0.1),
    load.Answer(0.004, "status 503"),
    load.Answer(0.002, "status 429"),
    load.Answer(5.0, load.TIMED_OUT),
    load.Answer(5.0, "status 504"),
]


def test_overload_is_judged() -> None:
    assert peers.judged(OVERLOAD) == ["20.0%", "40.0%", "40.0%", "4"]
    assert peers.neither(OVERLOAD) == {load.TIMED_OUT: 1, "status 504": 1}
    assert peers.judged([load.Answer(0.1)]) == ["100.0%", "0.0%", "0.0%", "–"]
    assert not peers.neither([load.Answer(0.1)])


def found(name: str, *rates: float) -> Found:
    """A round for each rate."""
    body = b'{"result":[{"id":"0","text":"a"}]}' if name == "dragoman" else b'{"text":"a"}'
    quiet = [load.Answer(0.01, "", body), load.Answer(0.02, "", body)]
    return Found(BY_NAME[name], [*rates], [0.02] * len(rates), quiet, OVERLOAD)


def test_ratios_are_those_of_rounds() -> None:
    ours, theirs = (
        found("dragoman", 90.0, 60.0, 100.0),
        found("litserve-generate", 30.0, 30.0, 25.0),
    )
    assert peers.times_as_fast(ours, theirs) == [3.0, 2.0, 4.0]
    assert theirs.row(ours)[2:] == [
        *("30.0", "3.00 (2.00–4.00)", "100%", "20", "10", "20"),
        *("20.0%", "40.0%", "40.0%", "4"),
    ]


def test_the_report_names_who_is_missing_and_the_best_of_each_kind() -> None:
    all_found = [
        found("dragoman", 90.0),
        found("fastapi-generate", 15.0),
        found("litserve-generate", 30.0),
        Found(BY_NAME["ray-generate"], failure="cannot be installed: no network"),
    ]
    text = peers.told(all_found, peers.parsed([]), "a machine")
    assert "Ray Serve, `@serve.batch` is missing: cannot be installed: no network" in text
    assert "uses transformers (LitServe, batched): 3.00 times (wanted 3)" in text
    assert "LitServe, batched, neither answered nor refused: 1 × timeout, 1 × status 504." in text
    assert "uses CTranslate2" not in text.rpartition("|")[2]
    for one in all_found:
        assert len(one.row(all_found[0])) == len(peers.HEADS)


def test_rounds_go_there_and_back_and_leave_out_who_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def measure(one: Found, given: Given, rate: float, seconds: float) -> None:
        order.append(one.peer.name)
        if one.peer.name == "ray-generate":
            raise NotStarted("no")
        one.rates.append(1.0)
        one.cpu_s.append(1.0)
        one.quiet, one.overload = found(one.peer.name, 1.0).quiet, OVERLOAD

    monkeypatch.setattr(peers, "measure", measure)
    monkeypatch.setattr(report, "stop_in_order_when_terminated", lambda: None)
    names = "dragoman,ray-generate,fastapi-generate"
    status = peers.main(["--peers", names, "--rounds", "3", "--out", str(tmp_path)])
    assert status == 1
    there = ["dragoman", "fastapi-generate", "ray-generate"]
    assert order == [*there, "fastapi-generate", "dragoman", "dragoman", "fastapi-generate"]
    assert "Ray Serve, `@serve.batch` is missing: no" in (tmp_path / "peers.md").read_text()


def test_what_cannot_be_installed_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "litserve" / "bin"
    folder.mkdir(parents=True)
    python = folder / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: no such package' >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(NotStarted, match="cannot be installed: ERROR: no such package"):
        services.install(BY_NAME["litserve-generate"], tmp_path)
    assert not (tmp_path / "litserve" / "installed.txt").exists()


@pytest.mark.slow
def test_a_package_of_argos_says_what_our_engine_says(tmp_path: Path) -> None:
    built = tmp_path / "built"
    argos.write_package(tmp_path, built, "en", "ja")
    folder = tmp_path / "en_ja"
    metadata = json.loads((folder / "metadata.json").read_bytes())
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
    theirs = ctranslate2.Translator(str(folder / "model"), device="cpu", intra_threads=1)
    text = "The weather is nice today."
    (found,) = theirs.translate_batch(
        [pieces.encode(text, out_type=str)],
        target_prefix=[[metadata["target_prefix"]]],
        beam_size=5,
    )
    rules = Rules(beams=5, max_length=200)
    ours = open_ctranslate(SMALL, rules, cache=built, batch=1, compute_type="int8")
    vocabulary = Vocabulary(SMALL)
    ids = vocabulary.encode(text, "en").ids
    ours.admit([Sentence(0, ids, vocabulary.language("ja"))])
    (finished,) = ours.step()
    assert pieces.decode(found.hypotheses[0][1:]) == vocabulary.decode(
        finished.hypotheses[0].tokens
    )
    texts = argos.pieces(8_112)
    assert len(set(texts)) == len(texts)
    assert texts[3] == "<unk>"


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in (["--peers", "nobody"], ["--seconds", "0"], ["--rate", "0"], ["--threads", "0"]):
        with pytest.raises(SystemExit):
            peers.parsed(wrong)
