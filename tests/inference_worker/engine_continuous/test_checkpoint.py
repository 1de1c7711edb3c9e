import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference_worker.engine.continuous.architecture import UnsupportedCheckpoint
from inference_worker.engine.continuous.checkpoint import load_checkpoint, sinusoids


def test_position_rows_are_those_of_transformers(model: Callable) -> None:
    table = model("small").model.decoder.embed_positions.weights
    assert sinusoids(1024, 256, 1).equal(table)


def test_reads_shards(small: Path, tmp_path: Path) -> None:
    weights = load_file(small / "model.safetensors")
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, members in parts.items():
        save_file({name: weights[name] for name in members}, tmp_path / part)
    index = {name: part for part, members in parts.items() for name in members}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_bytes((small / "config.json").read_bytes())

    found = load_checkpoint(tmp_path).weights

    assert set(found) == set(weights)
    assert all(torch.equal(found[name], weights[name]) for name in names)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "mbart"}, "model_type is mbart"),
        ({"activation_function": "gelu"}, "relu"),
        ({}, "no model.safetensors"),
    ],
)
def test_says_what_is_wrong(
    small: Path, tmp_path: Path, change: dict[str, str], complaint: str
) -> None:
    config = json.loads((small / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UnsupportedCheckpoint, match=complaint):
        load_checkpoint(tmp_path)


def test_says_that_a_directory_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=r"no config\.json"):
        load_checkpoint(tmp_path)
