"""Tests of ``inference_worker.loading``, ``device`` and ``settings``."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_worker.checkpoint import CheckpointError, find
from inference_worker.device import compute_type_named, device_named
from inference_worker.hang import Watchdog
from inference_worker.loading import load
from inference_worker.settings import DeviceError, WorkerSettings, cpus
from inference_worker.warmth import warm_up


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "copy"))


def loaded(folder: Path, **settings: Any) -> Any:
    return load(find(str(folder), folder), WorkerSettings(threads=1, **settings), Watchdog(60.0))


def test_a_checkpoint_becomes_a_model_and_a_warm_engine(copy: Path) -> None:
    model, engine = loaded(copy, device="cpu", beams=1)
    assert (model.name, model.max_length, model.max_source_tokens) == ("copy", 200, 128)
    assert (engine.device, engine.slots, engine.free) == ("cpu", 64, 64)
    assert warm_up(engine, model.vocabulary) > 0
    assert engine.free == 64


def test_limits_come_from_the_checkpoint(copy: Path) -> None:
    (copy / "generation_config.json").write_text('{"max_length": 50, "length_penalty": 0.5}')
    model, _ = loaded(copy, device="cpu")
    assert model.max_length == 50
    (copy / "generation_config.json").unlink()
    assert loaded(copy, device="cpu")[0].max_length == 200


def test_damaged_weights_are_a_readable_error(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        loaded(copy)


def test_missing_weights_are_not_made_up(copy: Path) -> None:
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.decoder.layers.1.fc1.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="1 weights are missing, among them model"):
        loaded(copy)


def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == "cpu"
    assert compute_type_named("auto", "cpu") == "float32"
    with pytest.raises(DeviceError, match="use --device cpu"):
        device_named("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_named("auto") == "cuda"
    assert device_named("cpu") == "cpu"


@pytest.mark.parametrize(("halves", "auto"), [(True, "bfloat16"), (False, "float16")])
def test_auto_takes_the_format_the_gpu_has(
    monkeypatch: pytest.MonkeyPatch, halves: bool, auto: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: halves)
    assert compute_type_named("auto", "cuda") == auto
    if not halves:
        with pytest.raises(DeviceError, match="use float16"):
            compute_type_named("bfloat16", "cuda")


@pytest.mark.parametrize(
    "wrong",
    [
        {"beams": 0},
        {"threads": -1},
        {"hang_s": 0.0},
        {"max_source_tokens": 4},
        {"grace_s": -1.0},
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
