"""The shape of an M2M100 checkpoint: its ``config.json`` and where its weights are. No tensors."""

import json
from dataclasses import dataclass
from pathlib import Path


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
    vocabulary: int
    positions: int
    scale_embedding: bool
    tied: bool  # one table embeds for both stacks and projects to the vocabulary
    start: int
    end: int
    pad: int


def read_architecture(directory: Path) -> Architecture:
    """Raises UnsupportedCheckpoint with what is wrong with the directory."""
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
        vocabulary=config["vocab_size"],
        positions=config["max_position_embeddings"],
        scale_embedding=config.get("scale_embedding", True),
        tied=config.get("tie_word_embeddings", True),
        start=config["decoder_start_token_id"],
        end=config["eos_token_id"],
        pad=config["pad_token_id"],
    )


def weight_files(directory: Path) -> list[Path]:
    """``model.safetensors``, or the shards that its index names."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        raise UnsupportedCheckpoint(f"{directory} holds no model.safetensors")
    shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return [directory / shard for shard in sorted(shards)]
