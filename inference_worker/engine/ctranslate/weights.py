"""safetensors as numpy arrays in float32, bfloat16 included, which numpy itself does not know.

A file is eight bytes with the length of a JSON header, the header, then the tensors; the header
tells each one's number format, shape and place among them.
"""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float32]]

NUMBERS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class UnreadableWeights(ValueError):
    """A tensor is stored in a format this module does not read."""


def read_weights(files: Sequence[Path]) -> dict[str, Array]:
    """Every tensor of some safetensors files, by name."""
    weights = {}
    for file in files:
        content = memoryview(file.read_bytes())
        (length,) = struct.unpack_from("<Q", content)
        start = 8 + length
        header = json.loads(bytes(content[8:start]))
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                stored = content[start + first : start + last]
                weights[name] = as_float32(name, entry["dtype"], entry["shape"], stored)
    return weights


def as_float32(name: str, kind: str, shape: Sequence[int], stored: memoryview) -> Array:
    """The tensor that is stored in those bytes. Raises UnreadableWeights for a kind not known."""
    if kind not in NUMBERS:
        raise UnreadableWeights(f"{name} is stored as {kind}; F32, F16 and BF16 are read")
    numbers: np.ndarray[Any, Any] = np.frombuffer(stored, NUMBERS[kind]).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)
