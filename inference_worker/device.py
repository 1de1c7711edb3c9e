"""Which device and number format ``auto`` means here, and whether what was asked for exists."""

import torch

from inference_worker.settings import DeviceError


def device_named(name: str) -> str:
    """``cpu`` or ``cuda``."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        built = "finds no GPU" if torch.version.cuda else "was built without CUDA"
        raise DeviceError(f"--device cuda: this PyTorch {built}; use --device cpu")
    return name


def compute_type_named(name: str, device: str) -> str:
    """The torch type of the weights, as its name."""
    halved = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        if device == "cpu":
            return "float32"
        return "bfloat16" if halved else "float16"
    if name == "bfloat16" and device == "cuda" and not halved:
        raise DeviceError("--compute-type bfloat16: this GPU has none; use float16")
    return name
