"""The decoder stack: one token per row in, its final hidden state out, over the slots' caches."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from inference_worker.engine.continuous.caches import Caches
from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.layers import Embedding, Norm, joint, layer_names
from inference_worker.engine.continuous.linear import Linear
from inference_worker.engine.continuous.placement import Placement
from inference_worker.engine.continuous.schedule import Segment


@dataclass(frozen=True)
class DecoderLayer:
    before_attention: Norm
    queries_keys_values: Linear
    attention_out: Linear
    before_cross: Norm
    cross_queries: Linear
    cross_out: Linear
    before_inner: Norm
    inner: Linear
    outer: Linear


class Decoder:
    """Decoder stack."""

    def __init__(self, checkpoint: Checkpoint, placement: Placement) -> None:
        architecture, weights = checkpoint.architecture, checkpoint.weights
        self._embedding = Embedding(checkpoint, "decoder", placement)
        self._heads = architecture.decoder_heads
        self._layers = []
        for name in layer_names("decoder", architecture.decoder_layers):
            own, cross = f"{name}.self_attn", f"{name}.encoder_attn"
            self._layers.append(
                DecoderLayer(
                    Norm(weights, f"{name}.self_attn_layer_norm", placement),
                    joint(weights, [f"{own}.{part}_proj" for part in "qkv"], placement),
                    joint(weights, [f"{own}.out_proj"], placement),
                    Norm(weights, f"{name}.encoder_attn_layer_norm", placement),
                    joint(weights, [f"{cross}.q_proj"], placement),
                    joint(weights, [f"{cross}.out_proj"], placement),
                    Norm(weights, f"{name}.final_layer_norm", placement),
                    joint(weights, [f"{name}.fc1"], placement),
                    joint(weights, [f"{name}.fc2"], placement),
                )
            )
        self._norm = Norm(weights, "model.decoder.layer_norm", placement)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        caches: Caches,
        write_index: Tensor,
        segments: Sequence[Segment],
    ) -> Tensor:
        """Runs one token on each of [rows] and returns hidden states [rows, width].

        Each layer stores its keys before it attends, so a row sees its own cell and, where the
        ancestry mask allows it, cells written by other rows of its group in this very step.
        """
        states = self._embedding(tokens, positions)
        width = states.shape[1]
        for index, layer in enumerate(self._layers):
            joined = layer.queries_keys_values(layer.before_attention(states))
            caches.write(index, write_index, joined[:, width:])
            attended = self._attend_own(joined[:, :width], caches, index, segments)
            states = states + layer.attention_out(attended)
            queries = layer.cross_queries(layer.before_cross(states))
            attended = self._attend_cross(queries, caches, index, segments)
            states = states + layer.cross_out(attended)
            inner = layer.inner(layer.before_inner(states)).relu_()
            states = states + layer.outer(inner)
        return self._norm(states)

    def _attend_own(
        self, queries: Tensor, caches: Caches, layer: int, segments: Sequence[Segment]
    ) -> Tensor:
        """Each beam over the cells of its group that are its ancestors."""
        beams = caches.ancestry.shape[1]
        grouped = self._by_head(queries.to(caches.dtype), beams)
        parts = []
        for segment in segments:
            keys, values = caches.own[layer][segment.slots, :, :, : segment.cells].unbind(1)
            mask = caches.ancestry[segment.slots, None, :, : segment.cells]
            parts.append(attend(grouped[segment.rows], keys, values, mask))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend_cross(
        self, queries: Tensor, caches: Caches, layer: int, segments: Sequence[Segment]
    ) -> Tensor:
        """The beams of a group are so many queries over one set of source keys."""
        beams = caches.ancestry.shape[1]
        grouped = self._by_head(queries.to(caches.dtype), beams)
        parts = []
        for segment in segments:
            keys, values = caches.cross[segment.slots, layer, :, :, : segment.sources].unbind(1)
            mask = caches.source_mask[segment.slots, ..., : segment.sources]
            mask = mask.expand(-1, -1, beams, -1)
            parts.append(attend(grouped[segment.rows], keys, values, mask))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _by_head(self, rows: Tensor, beams: int) -> Tensor:
        """[groups × beams, width] → [groups, heads, beams, head width]."""
        groups, width = rows.shape[0] // beams, rows.shape[1]
        split = rows.reshape(groups, beams, self._heads, width // self._heads)
        return split.transpose(1, 2)


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of [groups, heads, beams, head width] → [groups × beams, width], in the type the
    caches are kept in."""
    attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2).flatten(0, 1)
