"""A checkpoint directory as plain tensors: ``config.json`` and safetensors, no transformers."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


class UnsupportedCheckpoint(ValueError):
    """The directory holds no M2M100 checkpoint that this engine can run."""


@dataclass(frozen=True)
class Architecture:
    """The shape of an M2M100 model, from its ``config.json``."""

    width: int  # d_model
    encoder_layers: int
    encoder_heads: int
    decoder_layers: int
    decoder_heads: int
    decoder_inner: int  # feed-forward width
    vocabulary: int
    positions: int
    scale_embedding: bool
    tied: bool  # one table embeds for both stacks and projects to the vocabulary
    start: int
    end: int
    pad: int


@dataclass(frozen=True)
class Checkpoint:
    """An architecture and its weights by name, as stored (any floating dtype)."""

    architecture: Architecture
    weights: dict[str, Tensor]

    def table(self, name: str) -> Tensor:
        """A [vocabulary, width] weight by name, which a tied model stores only once."""
        return self.weights["model.shared.weight" if self.architecture.tied else f"{name}.weight"]


def load_checkpoint(directory: Path) -> Checkpoint:
    """Reads a checkpoint directory. Raises UnsupportedCheckpoint with what is wrong with it."""
    return Checkpoint(read_architecture(directory), read_weights(directory))


def read_architecture(directory: Path) -> Architecture:
    path = directory / "config.json"
    if not path.exists():
        raise UnsupportedCheckpoint(f"{directory} holds no config.json")
    config = json.loads(path.read_text("utf-8"))
    if config.get("model_type") != "m2m_100":
        raise UnsupportedCheckpoint(
            f"{path}: model_type is {config.get('model_type')}, not m2m_100"
        )
    if config.get("activation_function", "relu") != "relu":
        raise UnsupportedCheckpoint(f"{path}: only the relu activation is supported")
    return Architecture(
        width=config["d_model"],
        encoder_layers=config["encoder_layers"],
        encoder_heads=config["encoder_attention_heads"],
        decoder_layers=config["decoder_layers"],
        decoder_heads=config["decoder_attention_heads"],
        decoder_inner=config["decoder_ffn_dim"],
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        scale_embedding=config.get("scale_embedding", True),
        tied=config.get("tie_word_embeddings", True),
        start=config["decoder_start_token_id"],
        end=config["eos_token_id"],
        pad=config["pad_token_id"],
    )


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Every tensor of ``model.safetensors``, or of the shards that its index names."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        return dict(load_file(single))
    if not index.exists():
        raise UnsupportedCheckpoint(f"{directory} holds no model.safetensors")
    shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    return {
        name: weight for shard in shards for name, weight in load_file(directory / shard).items()
    }


def sinusoids(positions: int, width: int, pad: int) -> Tensor:
    """The position table, row by row as fairseq and transformers compute it: sines, then cosines.

    The first token of a sequence reads row ``pad + 1``; two rows are added for that offset.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.int64).float()
    frequencies = torch.exp(steps * -(math.log(10000) / (half - 1)))
    angles = torch.arange(positions + 2, dtype=torch.int64).float()[:, None] * frequencies[None]
    table = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
    if width % 2:
        table = torch.cat([table, torch.zeros(len(table), 1)], dim=1)
    table[pad] = 0
    return table
