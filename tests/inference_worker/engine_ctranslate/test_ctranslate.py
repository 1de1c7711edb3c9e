"""CTranslate2 translates as transformers does, and needs neither it nor torch."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from benchmarks.exact import load_model, make_sentences, reference
from inference_worker.engine.continuous.architecture import UnsupportedCheckpoint
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.ctranslate.cache import cached_model
from inference_worker.engine.ctranslate.engine import CTranslateEngine, open_ctranslate
from inference_worker.engine.ctranslate.model import build
from inference_worker.engine.ctranslate.weights import UnreadableWeights, read_weights
from inference_worker.engine.protocol import Engine, Hypothesis, Sentence
from inference_worker.tokens import Vocabulary

TEXTS = [
    ("en", "ja", "He goes to school every day."),
    ("ja", "en", "駅はどこですか。"),
    ("en", "fr", "Where is the station?"),
    ("de", "en", "Ich habe keine Zeit."),
    ("fr", "en", "Il fait froid aujourd'hui, n'est-ce pas ?"),
    ("en", "de", "I would like a cup of coffee and something to eat, please."),
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ctranslate2")


@pytest.fixture(scope="session")
def sentences(vocabulary: Vocabulary) -> list[Sentence]:
    return [
        Sentence(key, vocabulary.encode(text, source).ids, vocabulary.language(target))
        for key, (source, target, text) in enumerate(TEXTS * 3)
    ]


def run(engine: CTranslateEngine, sentences: list[Sentence]) -> dict[int, tuple[Hypothesis, ...]]:
    answers = {}
    left = list(sentences)
    while left or engine.free < engine.slots:
        fits, left = left[: engine.free], left[engine.free :]
        engine.admit(fits)
        answers |= {one.key: one.hypotheses for one in engine.step()}
    return answers


@pytest.mark.parametrize(
    "rules", [Rules(), Rules(beams=2, hypotheses=2), Rules(beams=1), Rules(length_penalty=0.6)]
)
def test_float32_equals_transformers(
    small: Path, cache: Path, sentences: list[Sentence], rules: Rules
) -> None:
    transformers.logging.set_verbosity_error()
    engine = open_ctranslate(small, rules, cache=cache, batch=4, compute_type="float32")
    wanted = reference(load_model(small), rules, sentences)

    found = run(engine, sentences)

    for key, hypotheses in found.items():
        assert [one.tokens for one in hypotheses] == [one.tokens for one in wanted[key]]
        if rules.beams > 1:
            assert hypotheses[0].score == pytest.approx(wanted[key][0].score, abs=1e-4)


@pytest.mark.parametrize("rules", [Rules(), Rules(beams=1, no_repeat_ngram=2)])
def test_a_sentence_may_forbid_repetition_for_itself(
    small: Path, cache: Path, sentences: list[Sentence], rules: Rules
) -> None:
    transformers.logging.set_verbosity_error()
    engine = open_ctranslate(small, rules, cache=cache, batch=4, compute_type="float32")
    asking = [replace(one, no_repeat_ngram=(0, 2, 3)[one.key % 3]) for one in sentences]
    wanted = reference(load_model(small), rules, asking)

    found = run(engine, asking)

    assert {key: kept[0].tokens for key, kept in found.items()} == {
        key: kept[0].tokens for key, kept in wanted.items()
    }


def test_int8_translates(
    small: Path, cache: Path, sentences: list[Sentence], vocabulary: Vocabulary
) -> None:
    engine = open_ctranslate(small, Rules(), cache=cache, batch=4, compute_type="int8")
    assert "学校" in vocabulary.decode(run(engine, sentences)[0][0].tokens)


def test_a_batch_is_the_oldest_and_its_likes(small: Path, cache: Path) -> None:
    engine = open_ctranslate(small, Rules(beams=1), cache=cache, batch=2, compute_type="int8")
    protocol: Engine = engine
    assert (protocol.name, protocol.slots, protocol.free) == ("ctranslate2", 4, 4)
    sources = {1: 9, 2: 40, 3: 10, 4: 41}
    engine.admit([Sentence(key, (8106, *[100] * n, 2), 8107) for key, n in sources.items()])

    assert {one.key for one in engine.step()} == {1, 3}
    assert engine.free == 2
    engine.drop([2, 99])
    assert [one.key for one in engine.step()] == [4]
    engine.admit([Sentence(5, (8106, 100, 2), 8107)])
    engine.reset()
    assert engine.free == engine.slots


def test_max_length_and_bound_hold(small: Path, cache: Path) -> None:
    rules = Rules(beams=1, max_length=9)
    engine = open_ctranslate(small, rules, cache=cache, batch=4, compute_type="float32")
    sentences = make_sentences(8112, 8, random.Random(3))
    wanted = reference(load_model(small), rules, sentences)
    found = run(engine, sentences)
    assert {key: kept[0].tokens for key, kept in found.items()} == {
        key: kept[0].tokens for key, kept in wanted.items()
    }


def test_other_stopping_rules_are_refused(small: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match="early_stopping"):
        open_ctranslate(
            small, Rules(early_stopping=False), cache=cache, batch=4, compute_type="int8"
        )


def test_needs_neither_torch_nor_transformers(small: Path, tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from pathlib import Path
from inference_worker.engine.continuous.rules import shipped_rules
from inference_worker.engine.ctranslate.engine import open_ctranslate
from inference_worker.engine.protocol import Sentence
small = Path({str(small)!r})
engine = open_ctranslate(
    small, shipped_rules(small), cache=Path({str(tmp_path)!r}), batch=2, compute_type="int8"
)
engine.admit([Sentence(1, (8106, 100, 2), 8107)])
sys.exit(0 if engine.step()[0].hypotheses else 1)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_builds_once_and_never_leaves_half_a_model(small: Path, tmp_path: Path) -> None:
    calls = []

    def failing(checkpoint: Path, room: Path, quantization: str | None) -> None:
        (room / "model.bin").write_bytes(b"half")
        raise RuntimeError("killed")

    def counted(checkpoint: Path, room: Path, quantization: str | None) -> None:
        calls.append(room)
        build(checkpoint, room, quantization)

    with pytest.raises(RuntimeError, match="killed"):
        cached_model(small, tmp_path, "int8", failing)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]

    first = cached_model(small, tmp_path, "int8", counted)
    assert cached_model(small, tmp_path, "int8", counted) == first
    assert len(calls) == 1
    assert (first / "model.bin").exists()
    assert cached_model(small, tmp_path, "float16", counted) != first


def test_reads_every_number_format(small: Path, tmp_path: Path) -> None:
    wanted = torch.linspace(-3, 3, 12).reshape(3, 4)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        save_file({"x": wanted.to(dtype)}, tmp_path / "x.safetensors", {"format": "pt"})
        found = read_weights([tmp_path / "x.safetensors"])["x"]
        assert found.dtype == np.float32
        assert torch.equal(torch.from_numpy(found.copy()), wanted.to(dtype).float())
    save_file({"x": wanted.to(torch.int32)}, tmp_path / "x.safetensors")
    with pytest.raises(UnreadableWeights, match="I32"):
        read_weights([tmp_path / "x.safetensors"])
    stored = load_file(small / "model.safetensors")
    assert set(read_weights([small / "model.safetensors"])) == set(stored)


def test_refuses_uneven_heads(small: Path, tmp_path: Path) -> None:
    config = (small / "config.json").read_text("utf-8")
    config = config.replace('"decoder_attention_heads": 4', '"decoder_attention_heads": 8')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UnsupportedCheckpoint, match="heads"):
        build(tmp_path, tmp_path, None)
