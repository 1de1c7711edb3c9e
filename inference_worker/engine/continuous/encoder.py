"""The encoder: source token ids to the cross-attention keys and values of every decoder layer.

A micro-batch is *ragged*: its sentences lie one after the other in one [tokens, width] matrix, so
that the linear layers see no padding and attention runs per sentence over exactly its own tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.layers import Embedding, Norm, joint, layer_names
from inference_worker.engine.continuous.linear import ComputeType, Linear

# Token counts are rounded up to this by one more sentence of padding, whose result is thrown away:
# the packed operators compile a kernel, for milliseconds, whenever they meet a new number of rows.
ROUND_TOKENS = 32


@dataclass(frozen=True)
class EncoderLayer:
    before_attention: Norm
    queries_keys_values: Linear
    attention_out: Linear
    before_inner: Norm
    inner: Linear
    outer: Linear


class Encoder:
    """Encoder stack and the cross-attention projections, which need nothing else."""

    def __init__(self, checkpoint: Checkpoint, compute_type: ComputeType) -> None:
        architecture, weights = checkpoint.architecture, checkpoint.weights
        self._embedding = Embedding(checkpoint, "encoder", compute_type)
        self._heads, self._pad = architecture.encoder_heads, architecture.pad
        self._cross_heads = architecture.decoder_heads
        self._layers = []
        for name in layer_names("encoder", architecture.encoder_layers):
            attention = f"{name}.self_attn"
            self._layers.append(
                EncoderLayer(
                    Norm(weights, f"{name}.self_attn_layer_norm"),
                    joint(weights, [f"{attention}.{part}_proj" for part in "qkv"], compute_type),
                    joint(weights, [f"{attention}.out_proj"], compute_type),
                    Norm(weights, f"{name}.final_layer_norm"),
                    joint(weights, [f"{name}.fc1"], compute_type),
                    joint(weights, [f"{name}.fc2"], compute_type),
                )
            )
        self._norm = Norm(weights, "model.encoder.layer_norm")
        self._cross = [
            joint(weights, [f"{name}.encoder_attn.{part}_proj" for part in "kv"], compute_type)
            for name in layer_names("decoder", architecture.decoder_layers)
        ]

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Tensor]:
        """Cross keys and values per sentence, [layers, 2, heads, tokens, head width]."""
        filler = -sum(len(source) for source in sources) % ROUND_TOKENS
        sources = [*sources, (self._pad,) * filler] if filler else sources
        lengths = [len(source) for source in sources]
        bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
        tokens = torch.tensor([token for source in sources for token in source])
        positions = torch.cat([torch.arange(length) for length in lengths])
        states = self._embedding(tokens, positions)
        for layer in self._layers:
            joined = layer.queries_keys_values(layer.before_attention(states))
            states = states + layer.attention_out(self._attend(joined, bounds))
            inner = layer.inner(layer.before_inner(states)).relu_()
            states = states + layer.outer(inner)
        states = self._norm(states)
        cross = torch.stack([project(states) for project in self._cross])
        layers, total, double = cross.shape
        heads = self._cross_heads
        cross = cross.view(layers, total, 2, heads, double // 2 // heads).permute(0, 2, 3, 1, 4)
        parts = [cross[:, :, :, start:stop] for start, stop in pairwise(bounds)]
        return parts[:-1] if filler else parts

    def _attend(self, joined: Tensor, bounds: Sequence[int]) -> Tensor:
        """Self-attention of each sentence: [tokens, 3 × width] → [tokens, width]."""
        total, triple = joined.shape
        heads, width = self._heads, triple // 3
        parts = joined.view(total, 3, heads, width // heads).permute(1, 2, 0, 3)
        attended = []
        for start, stop in pairwise(bounds):
            queries, keys, values = parts[:, None, :, start:stop].unbind()
            part = functional.scaled_dot_product_attention(queries, keys, values)
            attended.append(part[0].transpose(0, 1).reshape(-1, width))
        return torch.cat(attended)
