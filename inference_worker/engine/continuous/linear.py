"""Linear layers for the three compute types, packed once for the CPU's matrix units.

All take and return float32. ``bfloat16`` and ``int8`` round the weights and, on the way in, the
activations; everything between two linear layers stays float32. An int8 row is scaled by its own
largest value, never by the batch's: a sentence's result must not depend on its neighbours.

The packed operators are those PyTorch ships for its own x86 inference paths (oneDNN); they are not
a stable interface, which is why ``usable`` tries them before an engine is promised and why float32
falls back to the ordinary operator where they are missing.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from inference_worker.engine.continuous.placement import DTYPES, ComputeType, Placement, place

ROWS_HINT = 64  # rows a packed layout is tuned for
# Rows are padded to a multiple of this where numbers are rounded anyway: the matrix units work on
# tiles of 16 rows, and single int8 rows fall back to a reference kernel a hundred times slower.
TILE_ROWS = 16
INT8_MAX = 127.0
ONE = torch.ones(1)


@dataclass(frozen=True, slots=True)
class Operand:
    """Activations as a compute type multiplies them: ``count`` rows and what fills the last tile;
    the scale of each row [count, 1] where they were rounded to int8, else 1."""

    rows: Tensor
    count: int
    scale: Tensor = ONE


class Linear(Protocol):
    """[rows, inputs] → [rows, outputs], both of the placement's states. Layers with the same inputs
    may share one ``prepare``: the vocabulary is multiplied in parts."""

    def __call__(self, rows: Tensor) -> Tensor:
        return self.multiply(self.prepare(rows))

    def prepare(self, rows: Tensor) -> Operand:
        """[rows, inputs] as they are multiplied: unless a format says otherwise, as they are."""
        return Operand(rows, rows.shape[0])

    def multiply(self, operand: Operand) -> Tensor:
        """[rows, outputs] of the rows that were given to ``prepare``."""


class PlainLinear(Linear):
    """The ordinary operator, in any floating format on any device."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.weight, self.bias = weight.to(device, dtype).contiguous(), bias.to(device, dtype)

    def multiply(self, operand: Operand) -> Tensor:
        return functional.linear(operand.rows, self.weight, self.bias)


class PackedLinear(Linear):
    """float32 with the weight in oneDNN's blocked layout."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.bias = bias.float()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.float(), ROWS_HINT)

    def multiply(self, operand: Operand) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            operand.rows, self.weight, self.bias, "none", [], ""
        )
        return product


class BFloat16Linear(Linear):
    """The same in bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.bias = bias.bfloat16()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), ROWS_HINT)

    def prepare(self, rows: Tensor) -> Operand:
        return Operand(whole_tiles(rows.bfloat16()), rows.shape[0])

    def multiply(self, operand: Operand) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            operand.rows, self.weight, self.bias, "none", [], ""
        )
        return product[: operand.count].float()


class Int8Linear(Linear):
    """int8 weights with a scale per output, int8 activations with a scale per row, exact sums."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        weight = weight.float()
        self.bias = bias.float()
        self.scales = weight.abs().amax(dim=1).clamp_(min=1e-12).div_(INT8_MAX)
        rounded = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, [ROWS_HINT, weight.shape[1]])
        self.zero_points = torch.zeros(len(weight), dtype=torch.int64)

    def prepare(self, rows: Tensor) -> Operand:
        scale = rows.abs().amax(dim=1, keepdim=True).float().clamp_(min=1e-12).div_(INT8_MAX)
        rounded = (rows / scale).round_().to(torch.int8)
        return Operand(whole_tiles(rounded), rows.shape[0], scale)

    def multiply(self, operand: Operand) -> Tensor:
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            operand.rows,
            1.0,  # the activations' scale is per row, so it is applied below
            0,
            self.weight,
            self.scales,
            self.zero_points,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return product[: operand.count].mul_(operand.scale).add_(self.bias)


def whole_tiles(rows: Tensor) -> Tensor:
    """The rows, and rows of zeros to fill the last tile."""
    missing = -rows.shape[0] % TILE_ROWS
    return functional.pad(rows, (0, 0, 0, missing)) if missing else rows


def make_linear(weight: Tensor, bias: Tensor, placement: Placement) -> Linear:
    """A linear layer over ``weight`` [outputs, inputs] and ``bias`` [outputs]."""
    compute_type = placement.compute_type
    if placement.device.type != "cpu":
        return PlainLinear(weight, bias, DTYPES[compute_type], placement.device)
    if compute_type == "int8":
        return Int8Linear(weight, bias)
    if compute_type == "bfloat16":
        return BFloat16Linear(weight, bias)
    return PackedLinear(weight, bias) if packs() else PlainLinear(weight, bias)


def usable(compute_type: ComputeType, device: str = "cpu") -> bool:
    """Whether this machine computes in ``compute_type``, found out by doing it once."""
    try:
        placement = place(compute_type, device)
        weight = torch.eye(64, device=placement.device, dtype=placement.states)
        bias = torch.zeros(64, device=placement.device)
        product = make_linear(weight, bias, placement)(weight)
    except (RuntimeError, AttributeError, NotImplementedError, ValueError):
        return False
    return bool(torch.allclose(product, weight, atol=0.02))


@cache
def packs() -> bool:
    """Whether float32 weights can be packed here."""
    try:
        PackedLinear(torch.eye(16), torch.zeros(16))(torch.eye(16))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return True
