"""Where an engine computes, and in which number formats."""

from dataclasses import dataclass
from typing import Literal

import torch

ComputeType = Literal["float32", "bfloat16", "float16", "int8"]
ON_CPU: tuple[ComputeType, ...] = ("float32", "bfloat16", "int8")
ON_CUDA: tuple[ComputeType, ...] = ("float32", "bfloat16", "float16")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MEMORY_CPU_MIB = 4096
SHARE_OF_GPU = 0.8  # of its free memory; the rest is for activations, graphs and libraries


@dataclass(frozen=True)
class Placement:
    """A device and the formats of what lives on it.

    ``states`` is what flows between layers: float32 on CPUs, whose linear layers round on the way
    in; the compute type itself on a GPU, where every conversion would be one more kernel.
    ``keys`` is how keys and values are kept: rounded, at half the memory traffic, where the rest
    is rounded too and the processor multiplies that format natively.
    """

    device: torch.device
    compute_type: ComputeType
    states: torch.dtype
    keys: torch.dtype
    table: torch.dtype  # of embeddings


def place(compute_type: ComputeType, device: str = "cpu") -> Placement:
    """Raises ValueError for a compute type that the kind of device does not have."""
    on = torch.device(device)
    if compute_type not in (ON_CUDA if on.type == "cuda" else ON_CPU):
        raise ValueError(f"the torch engine has no {compute_type} on {device}")
    if on.type == "cuda" or compute_type == "float32":
        dtype = DTYPES[compute_type]
        return Placement(on, compute_type, dtype, dtype, dtype)
    native = torch.cpu.get_capabilities().get("avx512_bf16", False)
    keys = torch.bfloat16 if native else torch.float32
    return Placement(on, compute_type, torch.float32, keys, torch.float16)


def memory_here_mib(device: str) -> int:
    """What an engine may take where nobody has said how much."""
    if torch.device(device).type == "cpu":
        return MEMORY_CPU_MIB
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * SHARE_OF_GPU) // 2**20
