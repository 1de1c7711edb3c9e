"""What a device could do at best: its measured ceilings, and the least time that decoding needs.

A decode step reads every weight once and the keys of every group once, and does two operations per
weight and row. The floor of a step is the larger of bytes ÷ bandwidth and operations ÷ throughput;
both ceilings are measured in the same run, on the same device, in the same number format.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.protocol import Sentence

COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
MATRIX = {"cpu": 1024, "cuda": 8192}
REPEATS = 10


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second that a copy moves (read and written both counted), operations a second of a
    square matrix product."""

    bytes_per_s: float
    operations_per_s: float


def measure_ceilings(device: str, dtype: torch.dtype) -> Ceilings:
    kind = torch.device(device).type
    source = torch.zeros(COPY_BYTES[kind], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = fastest_s(lambda: target.copy_(source), kind)
    side = MATRIX[kind]
    left = torch.randn(side, side, device=device).to(dtype)
    product_s = fastest_s(lambda: left @ left, kind)
    return Ceilings(2 * source.numel() / copy_s, 2 * side**3 / product_s)


def fastest_s(work: Callable[[], object], kind: str) -> float:
    times = []
    for _ in range(REPEATS):
        synchronize(kind)
        began = time.perf_counter()
        work()
        synchronize(kind)
        times.append(time.perf_counter() - began)
    return min(times)


def synchronize(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()


def decoder_weights(checkpoint: Checkpoint) -> int:
    """Weights that a decode step reads: the decoder's layers but for the cross-attention keys and
    values, which the encoder's side makes, and the output projection."""
    layers = sum(
        weight.numel()
        for name, weight in checkpoint.weights.items()
        if name.startswith("model.decoder.layers.")
        and name.split(".")[-3:-1] not in (["encoder_attn", "k_proj"], ["encoder_attn", "v_proj"])
    )
    return layers + checkpoint.table("lm_head").numel()


def decoding_floor_s(
    checkpoint: Checkpoint,
    sentences: Sequence[Sentence],
    lengths: Sequence[int],
    *,
    width: int,
    beams: int,
    itemsize: int,
    ceilings: Ceilings,
) -> float:
    """The least time in which a decoder of ``width`` slots that are always full could generate
    ``lengths`` tokens for ``sentences``; the encoder is not counted."""
    architecture, weights = checkpoint.architecture, decoder_weights(checkpoint)
    token_bytes = 2 * architecture.decoder_layers * architecture.width * itemsize
    steps = sum(lengths) / width
    # Beams share most of their past, so at least one copy of it is read per group and step.
    pasts = sum(
        length * (len(sentence.source) + length / 2)
        for sentence, length in zip(sentences, lengths, strict=True)
    )
    reading_s = (steps * weights * itemsize + pasts * token_bytes) / ceilings.bytes_per_s
    operations = 2 * weights * beams * sum(lengths)
    return max(reading_s, operations / ceilings.operations_per_s)
