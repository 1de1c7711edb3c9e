"""A checkpoint as a CTranslate2 model directory.

CTranslate2 ships a converter, but it loads the checkpoint through transformers and torch, and its
M2M100 part fails under transformers 5, where the language tokens are no longer among the special
tokens. Here the specification is filled from the weights by name. The model's vocabulary is the
token ids written as decimal numbers: text never meets this engine.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.converters import utils
from ctranslate2.specs import common_spec, transformer_spec

from inference_worker.engine.continuous.architecture import (
    Architecture,
    UnsupportedCheckpoint,
    read_architecture,
    weight_files,
)
from inference_worker.engine.ctranslate.weights import Array, read_weights

UNKNOWN = 3  # <unk> in every M2M100 vocabulary
POSITION_OFFSET = 2  # CTranslate2 counts positions from 0, the table from padding + 1

Weights = Mapping[str, Array]


def build(checkpoint: Path, target: Path, quantization: str | None) -> None:
    """Writes a CTranslate2 model into the empty directory ``target``.

    ``quantization`` is how the weights are stored: ``int8``, ``float16`` or None for float32.
    Raises UnsupportedCheckpoint or UnreadableWeights.
    """
    architecture = read_architecture(checkpoint)
    if architecture.encoder_heads != architecture.decoder_heads:
        raise UnsupportedCheckpoint("CTranslate2 needs as many encoder as decoder heads")
    weights = read_weights(weight_files(checkpoint))
    spec = transformer_spec.TransformerSpec.from_config(
        (architecture.encoder_layers, architecture.decoder_layers),
        architecture.encoder_heads,
        pre_norm=True,
    )
    fill_stack(spec.encoder, weights, architecture, "encoder")
    fill_stack(spec.decoder, weights, architecture, "decoder")
    tokens = [str(number) for number in range(architecture.vocabulary)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token = spec.config.eos_token = str(architecture.end)
    spec.config.unk_token = str(UNKNOWN)
    spec.config.decoder_start_token = str(architecture.start)
    spec.validate()
    spec.optimize(quantization=quantization)
    spec.save(str(target))


def fill_stack(spec: Any, weights: Weights, architecture: Architecture, stack: str) -> None:
    """Fills the specification of the encoder or the decoder."""
    embedding = spec.embeddings[0] if stack == "encoder" else spec.embeddings
    embedding.weight = table(weights, architecture, f"model.{stack}.embed_tokens")
    spec.scale_embeddings = math.sqrt(architecture.width) if architecture.scale_embedding else 1.0
    spec.position_encodings.encodings = sinusoids(architecture.positions, architecture.width)
    fill_norm(spec.layer_norm, weights, f"model.{stack}.layer_norm")
    for index, layer in enumerate(spec.layer):
        name = f"model.{stack}.layers.{index}"
        fill_attention(layer.self_attention, weights, f"{name}.self_attn", own=True)
        fill_norm(layer.self_attention.layer_norm, weights, f"{name}.self_attn_layer_norm")
        if stack == "decoder":
            fill_attention(layer.attention, weights, f"{name}.encoder_attn", own=False)
            fill_norm(layer.attention.layer_norm, weights, f"{name}.encoder_attn_layer_norm")
        fill_linear(layer.ffn.linear_0, weights, f"{name}.fc1")
        fill_linear(layer.ffn.linear_1, weights, f"{name}.fc2")
        fill_norm(layer.ffn.layer_norm, weights, f"{name}.final_layer_norm")
    if stack == "decoder":
        spec.projection.weight = table(weights, architecture, "lm_head")


def fill_attention(spec: Any, weights: Weights, name: str, *, own: bool) -> None:
    """Self-attention fuses queries, keys and values; cross-attention keys and values only."""
    parts = [filled_linear(weights, f"{name}.{part}_proj") for part in "qkv"]
    groups: Sequence[Sequence[Any]] = [parts] if own else [parts[:1], parts[1:]]
    for target, group in zip(spec.linear, groups, strict=False):
        utils.fuse_linear(target, group)
    fill_linear(spec.linear[-1], weights, f"{name}.out_proj")


def filled_linear(weights: Weights, name: str) -> Any:
    """A linear layer of CTranslate2 with the weights of that name."""
    spec = common_spec.LinearSpec()
    fill_linear(spec, weights, name)
    return spec


def fill_linear(spec: Any, weights: Weights, name: str) -> None:
    """Gives a linear layer its weight [outputs, inputs] and bias [outputs]."""
    spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]


def fill_norm(spec: Any, weights: Weights, name: str) -> None:
    """Gives a normalisation its scale and shift, both [width]."""
    spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]


def table(weights: Weights, architecture: Architecture, name: str) -> Array:
    """A [vocabulary, width] weight by name, which a tied model stores only once."""
    return weights["model.shared.weight" if architecture.tied else f"{name}.weight"]


def sinusoids(positions: int, width: int) -> Array:
    """The position table from the first real position on; sines, then cosines, as float32."""
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -(math.log(10000) / (half - 1)))
    numbers = np.arange(POSITION_OFFSET, positions + POSITION_OFFSET, dtype=np.float32)
    angles = numbers[:, None] * frequencies.astype(np.float32)[None]
    encodings = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    return np.pad(encodings, ((0, 0), (0, width % 2)))
