"""The network: builds a small M2M100, initialises it the way that learns at this size, continues
from a checkpoint, and computes the loss of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import M2M100Config, M2M100ForConditionalGeneration

from models.training.data import IGNORED, Batch
from models.training.tokenizer import EOS, PAD


@dataclass(frozen=True)
class Shape:
    """The size of a network trained from scratch."""

    d_model: int = 256
    ffn: int = 1024
    heads: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 3
    dropout: float = 0.1


def build_config(shape: Shape, vocabulary_size: int) -> Any:
    return M2M100Config(
        vocab_size=vocabulary_size,
        d_model=shape.d_model,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_ffn_dim=shape.ffn,
        decoder_ffn_dim=shape.ffn,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        dropout=shape.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        max_position_embeddings=1024,
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=EOS,
    )


def new_network(shape: Shape, vocabulary_size: int, seed: int) -> Any:
    """A network of random weights, as fairseq draws them.

    transformers draws from N(0, 0.02), about three times too little at d 256: attention starts
    near uniform and the tokens drown in the positions.
    """
    torch.manual_seed(seed)
    network = M2M100ForConditionalGeneration(build_config(shape, vocabulary_size))
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear) and name != "lm_head":
                attention_input = name.endswith(("q_proj", "k_proj", "v_proj"))
                nn.init.xavier_uniform_(module.weight, gain=2**-0.5 if attention_input else 1.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        embedding = network.model.shared.weight
        embedding.normal_(0, shape.d_model**-0.5)
        embedding[PAD].zero_()
    return network


def load_network(folder: Path, dropout: float) -> Any:
    """A checkpoint's weights in float32 (training in fp16 would lose small updates)."""
    return M2M100ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, dropout=dropout, local_files_only=True
    )


def token_loss(network: Any, batch: Batch, smoothing: float) -> Tensor:
    """Mean cross entropy over the target tokens of `batch`, in float32; layers run in bf16."""
    device = network.device
    source, decoder_input, labels = (part.to(device, non_blocking=True) for part in batch)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        hidden = network.model(
            input_ids=source,
            attention_mask=(source != PAD).long(),
            decoder_input_ids=decoder_input,
            use_cache=False,
        ).last_hidden_state.flatten(0, 1)
        labels = labels.flatten()
        if device.type == "cpu":
            # Padded rows cost a full vocabulary each. On CUDA the selection would stall the stream.
            hidden, labels = hidden[labels != IGNORED], labels[labels != IGNORED]
        logits = network.lm_head(hidden)
    return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, label_smoothing=smoothing)
