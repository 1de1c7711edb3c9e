"""Tests of ``inference_worker.loading``, ``device`` and ``settings``."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from inference_worker.checkpoint import CheckpointError, find
from inference_worker.engine.protocol import Finished, Sentence
from inference_worker.hang import Watchdog
from inference_worker.loading import load
from inference_worker.settings import WorkerSettings, cpus
from inference_worker.warmth import warm_up

ENGINES = ("torch", "ctranslate2", "generate")


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


def loaded(folder: Path, **settings: Any) -> Any:
    values = {"threads": 1, "device": "cpu", "cache_dir": str(folder.parent / "cache")} | settings
    return load(find(str(folder), folder), WorkerSettings(**values), Watchdog(60.0))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_becomes_a_model_and_a_warm_engine(copy: Path, engine: str) -> None:
    model, opened = loaded(copy, beams=2, engine=engine)
    assert (model.name, model.max_length, model.max_source_tokens) == ("copy", 200, 128)
    assert (opened.name, opened.device) == (engine, "cpu")
    assert opened.free == opened.slots > 0
    assert warm_up(opened, model.vocabulary) > 0
    assert opened.free == opened.slots


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_translates_an_everyday_sentence(copy: Path, engine: str) -> None:
    model, opened = loaded(copy, engine=engine, compute_type="float32")
    ids = model.vocabulary.encode("Where is the station?", "en").ids
    opened.admit([Sentence(1, ids, model.vocabulary.language("ja"))])
    finished: list[Finished] = []
    while not finished:
        finished = opened.step()
    assert "駅" in model.vocabulary.decode(finished[0].hypotheses[0].tokens)


def test_slots_have_room_for_twice_the_longest_sentence(copy: Path) -> None:
    """A slot as long as the model allows would cost the 418M model 100 MiB."""
    _, opened = loaded(copy, engine="torch", max_source_tokens=100)
    assert opened.source_tokens == 200
    model, opened = loaded(copy, engine="torch", max_source_tokens=8)
    assert warm_up(opened, model.vocabulary) > 0


def test_limits_come_from_the_checkpoint(copy: Path) -> None:
    (copy / "generation_config.json").write_text('{"max_length": 50, "length_penalty": 0.5}')
    model, _ = loaded(copy, device="cpu")
    assert model.max_length == 50
    (copy / "generation_config.json").unlink()
    assert loaded(copy, device="cpu")[0].max_length == 200


@pytest.mark.parametrize("engine", ENGINES)
def test_damaged_weights_are_a_readable_error(copy: Path, engine: str) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        loaded(copy, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_missing_weights_are_not_made_up(copy: Path, engine: str) -> None:
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.decoder.layers.1.fc1.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"(lacks the weight|weights are missing).*fc1"):
        loaded(copy, engine=engine)


@pytest.mark.parametrize(
    "wrong",
    [
        {"beams": 0},
        {"threads": -1},
        {"hang_s": 0.0},
        {"max_source_tokens": 4},
        {"grace_s": -1.0},
        {"memory_mib": -1},
        {"length_bound": -1.0},
    ],
)
def test_settings_refuse_what_cannot_be_meant(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}"):
        WorkerSettings(**wrong)


def test_zero_lets_the_device_decide() -> None:
    settings = WorkerSettings()
    assert (settings.batch_tokens_on("cpu"), settings.slots_on("cpu")) == (512, 64)
    assert (settings.batch_tokens_on("cuda"), settings.slots_on("cuda")) == (8_192, 1_024)
    assert WorkerSettings(batch_tokens=64, slots=3).slots_on("cpu") == 3
    assert [WorkerSettings(beams=beams).batch_on("cpu") for beams in (1, 2, 5, 8)] == [
        32,
        32,
        16,
        10,
    ]
    assert WorkerSettings(beams=100).batch_on("cpu") == 1
    assert settings.batch_on("cuda") == 32
    assert WorkerSettings(slots=7).batch_on("cpu") == 7
    assert WorkerSettings(threads=7).threads_here() == 7
    assert settings.threads_here() >= 1


def test_a_container_quota_bounds_the_threads(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    everything = cpus(quota)
    quota.write_text("max 100000\n")
    assert cpus(quota) == everything
    quota.write_text("100000 100000\n")
    assert cpus(quota) == 1
    quota.write_text("50000 100000\n")
    assert cpus(quota) == 1
