"""The peers: what they are asked, how their answers are judged, and the model they share."""

import json
from pathlib import Path

import ctranslate2
import pytest
import sentencepiece

from benchmarks import argos, load, peers, services
from benchmarks.peers import Found, Overloaded
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


def test_overload_is_judged() -> None:
    answers = [
        load.Answer(0.1),
        load.Answer(0.004, "status 503"),
        load.Answer(0.002, "status 429"),
        load.Answer(5.0, load.TIMED_OUT),
        load.Answer(5.0, "status 504"),
    ]
    found = peers.judged(answers)
    assert (found.sent, found.answered, found.refused_s) == (5, 1, [0.002, 0.004])
    assert found.others == {load.TIMED_OUT: 1, "status 504": 1}
    assert found.row() == ["20%", "40%", "40%", "4"]
    assert Overloaded(2, 2, [], {}).row() == ["100%", "0%", "0%", "–"]


def test_the_rate_counts_answers_until_callers_stop_coming() -> None:
    assert peers.steady_rate([number / 100 for number in range(1, 1_101)], 10.0) == 100.0
    assert peers.steady_rate([4.0, 8.0, 16.0], 10.0) == 3 / 16


def test_the_report_names_who_is_missing_and_the_best_of_each_kind() -> None:
    quiet = {"quiet_ms": (10.0, 20.0), "texts": ("a", "b"), "overload": Overloaded(2, 2, [], {})}
    found = [
        Found(BY_NAME["dragoman"], 90.0, 0.01, **quiet),  # type: ignore[arg-type]
        Found(BY_NAME["fastapi-generate"], 15.0, 0.05, **quiet),  # type: ignore[arg-type]
        Found(BY_NAME["litserve-generate"], 30.0, 0.03, **quiet),  # type: ignore[arg-type]
        Found(BY_NAME["ray-generate"], failure="cannot be installed: no network"),
    ]
    text = peers.told(found, peers.parsed([]), "a machine")
    assert "Ray Serve, `@serve.batch` is missing: cannot be installed: no network" in text
    assert "uses transformers (LitServe, batched): 3.00 times (wanted 3)" in text
    assert "uses CTranslate2" not in text.rpartition("|")[2]
    for one in found:
        assert len(one.row(found[0])) == len(peers.HEADS)


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
