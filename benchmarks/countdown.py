"""A model of any size whose outputs have the lengths a benchmark asks for.

Random weights would answer with random lengths. Here the layers are random and small next to the
embeddings, and the output projection of token ``v`` is the embedding of ``v + 1``: the model counts
down, and ``</s>`` is token 2. A sentence whose forced first token is ``2 + n`` therefore ends after
``n`` more. Weaker echoes of the embeddings above let beams skip numbers, so that they end at
different times, as beams do. The arithmetic is that of any model of the same shape.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from inference_worker.engine.protocol import Sentence

END = 2
FIRST_WORD = 1_000  # source tokens are drawn from here on
ECHOES = (1.0, 0.6, 0.4)  # how strongly a projection answers to the embeddings above it
EMBEDDING_STD, LAYER_STD, PROJECTION_STD = 0.3, 0.02, 0.02


@dataclass(frozen=True)
class Size:
    """The shape of a model; the default is that of facebook/m2m100_418M."""

    width: int = 1024
    inner: int = 4096
    layers: int = 12
    heads: int = 16
    vocabulary: int = 128_112


def write_countdown(directory: Path, size: Size) -> None:
    """Writes the checkpoint, in float16, unless the directory holds it already."""
    if (directory / "model.safetensors").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    weights = dict(layer_weights(size, generator)) | table_weights(size, generator)
    save_file({name: weight.half() for name, weight in weights.items()}, directory / "part")
    (directory / "config.json").write_text(json.dumps(config_of(size)))
    (directory / "part").rename(directory / "model.safetensors")


def config_of(size: Size) -> dict[str, object]:
    stacks: dict[str, object] = {}
    for stack in ("encoder", "decoder"):
        stacks |= {
            f"{stack}_layers": size.layers,
            f"{stack}_attention_heads": size.heads,
            f"{stack}_ffn_dim": size.inner,
        }
    return stacks | {
        "model_type": "m2m_100",
        "architectures": ["M2M100ForConditionalGeneration"],
        "activation_function": "relu",
        "d_model": size.width,
        "vocab_size": size.vocabulary,
        "max_position_embeddings": 1024,
        "scale_embedding": True,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": END,
        "decoder_start_token_id": END,
    }


def table_weights(size: Size, generator: torch.Generator) -> dict[str, Tensor]:
    table = torch.randn(size.vocabulary, size.width, generator=generator)
    projection = sum(echo * table.roll(-up, 0) for up, echo in enumerate(ECHOES, start=1))
    assert isinstance(projection, Tensor)
    embedding = table * EMBEDDING_STD
    return {
        "model.shared.weight": embedding,
        "model.encoder.embed_tokens.weight": embedding.clone(),
        "model.decoder.embed_tokens.weight": embedding.clone(),
        "lm_head.weight": projection * PROJECTION_STD,
    }


def layer_weights(size: Size, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    width, inner = size.width, size.inner

    def linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", torch.randn(outputs, inputs, generator=generator) * LAYER_STD
        yield f"{name}.bias", torch.zeros(outputs)

    def norm(name: str) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", torch.ones(width)
        yield f"{name}.bias", torch.zeros(width)

    for stack, attentions in (
        ("encoder", ["self_attn"]),
        ("decoder", ["self_attn", "encoder_attn"]),
    ):
        yield from norm(f"model.{stack}.layer_norm")
        for index in range(size.layers):
            layer = f"model.{stack}.layers.{index}"
            for attention in attentions:
                for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield from linear(f"{layer}.{attention}.{part}", width, width)
                yield from norm(f"{layer}.{attention}_layer_norm")
            yield from linear(f"{layer}.fc1", inner, width)
            yield from linear(f"{layer}.fc2", width, inner)
            yield from norm(f"{layer}.final_layer_norm")


def countdown_sentences(lengths: list[tuple[int, int]], size: Size) -> list[Sentence]:
    """One sentence per (source tokens, generated tokens)."""
    rng = random.Random(2)
    sentences = []
    for key, (source, output) in enumerate(lengths):
        words = [rng.randrange(FIRST_WORD, size.vocabulary) for _ in range(source - 1)]
        sentences.append(Sentence(key, (*words, END), END + output - 1))
    return sentences
