"""Pickled weights to safetensors, read with ``weights_only``: nothing is ever unpickled freely."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from inference_worker.checkpoint import CheckpointError

_EMBEDDINGS = "model.shared.weight"  # the name under which transformers looks for tied weights


def convert(pickles: Sequence[Path], target: Path) -> None:
    """Writes the tensors of all files to ``target``. Raises CheckpointError for anything else than
    tensors."""
    tensors: dict[str, torch.Tensor] = {}
    for path in pickles:
        tensors |= _tensors(path)
    save_file(_untied(tensors), target, metadata={"format": "pt"})


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        # The message quotes what the pickle wanted to run; that is for nobody's terminal.
        raise CheckpointError(
            f"{path.name} is damaged, or holds more than tensors, and was not loaded"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path.name} is not a dictionary of weights")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _untied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each storage under one name, the embeddings under theirs: safetensors has no aliases."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name in sorted(tensors, key=lambda name: (name != _EMBEDDINGS, name)):
        place = (tensors[name].data_ptr(), tensors[name].shape)
        if place not in seen:
            seen.add(place)
            kept[name] = tensors[name].contiguous()
    return kept
