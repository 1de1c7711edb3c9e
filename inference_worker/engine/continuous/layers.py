"""The parts that encoder and decoder are made of, taken from a checkpoint's weights by name."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from inference_worker.engine.continuous.checkpoint import Checkpoint, sinusoids
from inference_worker.engine.continuous.linear import Linear, make_linear
from inference_worker.engine.continuous.placement import Placement

NORM_EPSILON = 1e-5


class Embedding:
    """Token embedding, scaled, plus the sinusoid of the token's position. A padding token has no
    position, not even one that a decoder generated."""

    def __init__(self, checkpoint: Checkpoint, stack: str, placement: Placement) -> None:
        architecture, device = checkpoint.architecture, placement.device
        table = checkpoint.table(f"model.{stack}.embed_tokens")
        self._table, self._states = table.to(device, placement.table), placement.states
        self._scale = math.sqrt(architecture.width) if architecture.scale_embedding else 1.0
        self._pad = architecture.pad
        positions = sinusoids(architecture.positions, architecture.width, architecture.pad)
        self._positions = positions.to(device)

    def __call__(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token ids and 0-based positions [rows] → [rows, width]."""
        embedded = functional.embedding(tokens, self._table).float().mul_(self._scale)
        rows = (positions + self._pad + 1).masked_fill_(tokens == self._pad, self._pad)
        return embedded.add_(functional.embedding(rows, self._positions)).to(self._states)


class Norm:
    """Layer normalisation."""

    def __init__(self, weights: dict[str, Tensor], name: str, placement: Placement) -> None:
        self._weight = weights[f"{name}.weight"].to(placement.device, placement.states)
        self._bias = weights[f"{name}.bias"].to(placement.device, placement.states)

    def __call__(self, rows: Tensor) -> Tensor:
        shape = self._weight.shape
        return functional.layer_norm(rows, shape, self._weight, self._bias, NORM_EPSILON)


def layer_names(stack: str, layers: int) -> list[str]:
    """What the weights of a stack (``encoder``, ``decoder``) begin with, layer by layer."""
    return [f"model.{stack}.layers.{index}" for index in range(layers)]


def joint(weights: dict[str, Tensor], names: Sequence[str], placement: Placement) -> Linear:
    """One linear layer whose outputs are those of the named ones, side by side."""
    weight = torch.cat([weights[f"{name}.weight"] for name in names])
    bias = torch.cat([weights[f"{name}.bias"] for name in names])
    return make_linear(weight, bias, placement)
