"""A checkpoint directory as plain tensors, without transformers."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from inference_worker.engine.continuous.architecture import (
    Architecture,
    read_architecture,
    weight_files,
)


@dataclass(frozen=True)
class Checkpoint:
    """An architecture and its weights by name, as stored (any floating dtype)."""

    architecture: Architecture
    weights: dict[str, Tensor]

    def table(self, name: str) -> Tensor:
        """A [vocabulary, width] weight by name, which a tied model stores only once."""
        return self.weights["model.shared.weight" if self.architecture.tied else f"{name}.weight"]


def load_checkpoint(directory: Path) -> Checkpoint:
    """Reads a checkpoint directory. Raises UnsupportedCheckpoint with what is wrong with it."""
    architecture = read_architecture(directory)
    weights: dict[str, Tensor] = {}
    for file in weight_files(directory):
        weights |= load_file(file)
    return Checkpoint(architecture, weights)


def sinusoids(positions: int, width: int, pad: int) -> Tensor:
    """The position table, row by row as fairseq and transformers compute it: sines, then cosines.

    The first token of a sequence reads row ``pad + 1``; two rows are added for that offset.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.int64).float()
    frequencies = torch.exp(steps * -(math.log(10000) / (half - 1)))
    angles = torch.arange(positions + 2, dtype=torch.int64).float()[:, None] * frequencies[None]
    table = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    if width % 2:
        table = torch.cat([table, torch.zeros(len(table), 1)], dim=1)
    table[pad] = 0
    return table
