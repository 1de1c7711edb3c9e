"""The encoder: source token ids to the cross-attention keys and values of every decoder layer.

A micro-batch is *ragged*: its sentences lie one after the other in one [tokens, width] matrix, so
that the linear layers see no padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inference_worker.engine.continuous.attention import Padded, Ragged
from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.layers import Embedding, Norm, joint, layer_names
from inference_worker.engine.continuous.linear import Linear
from inference_worker.engine.continuous.placement import Placement

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

    def __init__(self, checkpoint: Checkpoint, placement: Placement, *, padded: bool) -> None:
        """``padded`` decides how sentences attend, see ``attention``."""
        self._padded, self._device = padded, placement.device
        architecture, weights = checkpoint.architecture, checkpoint.weights
        self._embedding = Embedding(checkpoint, "encoder", placement)
        self._heads, self._pad = architecture.encoder_heads, architecture.pad
        self._cross_heads = architecture.decoder_heads
        self._layers = []
        for name in layer_names("encoder", architecture.encoder_layers):
            attention = f"{name}.self_attn"
            self._layers.append(
                EncoderLayer(
                    Norm(weights, f"{name}.self_attn_layer_norm", placement),
                    joint(weights, [f"{attention}.{part}_proj" for part in "qkv"], placement),
                    joint(weights, [f"{attention}.out_proj"], placement),
                    Norm(weights, f"{name}.final_layer_norm", placement),
                    joint(weights, [f"{name}.fc1"], placement),
                    joint(weights, [f"{name}.fc2"], placement),
                )
            )
        self._norm = Norm(weights, "model.encoder.layer_norm", placement)
        self._cross = [
            joint(weights, [f"{name}.encoder_attn.{part}_proj" for part in "kv"], placement)
            for name in layer_names("decoder", architecture.decoder_layers)
        ]

    def encode(self, sources: Sequence[Sequence[int]]) -> list[Tensor]:
        """Cross keys and values per sentence, [layers, 2, heads, tokens, head width]."""
        filler = -sum(len(source) for source in sources) % ROUND_TOKENS
        sources = [*sources, (self._pad,) * filler] if filler else sources
        lengths = [len(source) for source in sources]
        tokens, positions = torch.tensor(
            [
                [token for source in sources for token in source],
                [position for length in lengths for position in range(length)],
            ],
            device=self._device,
        )
        attention = (Padded if self._padded else Ragged)(lengths, self._heads, self._device)
        states = self._embedding(tokens, positions)
        for layer in self._layers:
            joined = layer.queries_keys_values(layer.before_attention(states))
            states = states + layer.attention_out(attention(joined))
            inner = layer.inner(layer.before_inner(states)).relu_()
            states = states + layer.outer(inner)
        states = self._norm(states)
        cross = torch.stack([project(states) for project in self._cross])
        layers, total, double = cross.shape
        heads = self._cross_heads
        cross = cross.view(layers, total, 2, heads, double // 2 // heads).permute(0, 2, 3, 1, 4)
        parts = list(torch.split(cross, lengths, dim=3))
        return parts[:-1] if filler else parts
