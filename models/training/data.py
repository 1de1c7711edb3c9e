"""From sentence pairs to batches of ids: loads and encodes the TSV files, draws directions by
weight without repeating a pair before the others had their turn, groups sentences of like length,
and pads. The order of batches is a function of the seed alone, so a resumed run can skip to where
it was."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.training.tokenizer import EOS, PAD, Ids, Vocabulary
from models.training.tsv import read_pairs

IGNORED = -100
WEIGHT = re.compile(r"\d+(\.\d+)?")
# Sorting this many examples at a time groups lengths well and still mixes directions.
WINDOW_EXAMPLES = 24_000

LanguagePair = tuple[str, str]
Pools = dict[LanguagePair, list[tuple[Ids, Ids]]]


class Example(NamedTuple):
    """One sentence in one direction, as ids without language and end tokens."""

    source_language: str
    target_language: str
    source: Ids
    target: Ids

    def reversed(self) -> Example:
        return Example(self.target_language, self.source_language, self.target, self.source)


class Batch(NamedTuple):
    """int64 tensors of shape [rows, padded length]; labels hold -100 where there is no token."""

    source: Tensor
    decoder_input: Tensor
    labels: Tensor

    @property
    def target_tokens(self) -> int:
        return int((self.labels != IGNORED).sum())


def parse_weights(text: str) -> dict[LanguagePair, float]:
    """Read `en-ja:46,de-en:11`; raises ValueError on anything else.

    A weight is the share of examples that come from that pair, half of them in each direction.
    """
    weights: dict[LanguagePair, float] = {}
    for item in text.split(","):
        pair, _, weight = item.partition(":")
        first, _, second = pair.partition("-")
        if not (first and second and WEIGHT.fullmatch(weight) and float(weight) > 0):
            raise ValueError(f"not a weighted language pair: {item!r}")
        weights[min(first, second), max(first, second)] = float(weight)
    return weights


def load_pools(
    files: Iterable[Path], vocabulary: Vocabulary, pairs: Iterable[LanguagePair], max_tokens: int
) -> Pools:
    """Encode the given language pairs; drops sentences that are empty or exceed `max_tokens`."""
    wanted = set(pairs)
    texts: dict[LanguagePair, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for file in files:
        for pair in read_pairs(file):
            first = (pair.source_language, pair.source)
            second = (pair.target_language, pair.target)
            (language_a, text_a), (language_b, text_b) = sorted((first, second))
            if (language_a, language_b) in wanted:
                texts[language_a, language_b][0].append(text_a)
                texts[language_a, language_b][1].append(text_b)
    pools: Pools = {}
    for languages in sorted(texts):
        sides = (vocabulary.encode(side) for side in texts[languages])
        pools[languages] = [
            (a, b)
            for a, b in zip(*sides, strict=True)
            if 0 < len(a) <= max_tokens and 0 < len(b) <= max_tokens
        ]
    return pools


def draw_examples(
    pools: Pools, weights: Mapping[LanguagePair, float], rng: random.Random
) -> Iterator[Example]:
    """Examples without end: the pair by weight, within it both directions of every line once a
    round."""
    if empty := [pair for pair in weights if not pools.get(pair)]:
        raise ValueError(f"no training sentences for {empty}")
    pairs, shares = list(weights), list(weights.values())
    rounds: dict[LanguagePair, list[int]] = {pair: [] for pair in pairs}
    while True:
        for pair in rng.choices(pairs, shares, k=WINDOW_EXAMPLES):
            if not rounds[pair]:
                rounds[pair] = list(range(2 * len(pools[pair])))
                rng.shuffle(rounds[pair])
            line, backwards = divmod(rounds[pair].pop(), 2)
            example = Example(*pair, *pools[pair][line])
            yield example.reversed() if backwards else example


def group_by_length(
    examples: Iterable[Example], tokens: int, rng: random.Random
) -> list[list[Example]]:
    """Groups whose padded size (rows times longest side) stays within `tokens`, in random order."""
    ordered = sorted(examples, key=lambda e: (len(e.target) // 2, len(e.source), rng.random()))
    groups: list[list[Example]] = [[]]
    longest = 0
    for example in ordered:
        length = max(len(example.source), len(example.target)) + 2
        if groups[-1] and max(longest, length) * (len(groups[-1]) + 1) > tokens:
            groups.append([])
            longest = 0
        groups[-1].append(example)
        longest = max(longest, length)
    rng.shuffle(groups)
    return groups


def stream_groups(
    pools: Pools, weights: Mapping[LanguagePair, float], tokens: int, seed: str
) -> Iterator[list[Example]]:
    """Groups of examples without end, the same for the same seed."""
    rng = random.Random(seed)
    examples = draw_examples(pools, weights, rng)
    while True:
        window = [next(examples) for _ in range(WINDOW_EXAMPLES)]
        yield from group_by_length(window, tokens, rng)


def collate(group: list[Example], vocabulary: Vocabulary) -> Batch:
    """Pad a group the way M2M100 was trained.

    Encoder: `[source language] tokens </s>`; labels: `[target language] tokens </s>`; the decoder
    sees the labels shifted right behind a `</s>`.
    """
    source_width = max(len(example.source) for example in group) + 2
    target_width = max(len(example.target) for example in group) + 2
    source = np.full((len(group), source_width), PAD, np.int64)
    labels = np.full((len(group), target_width), IGNORED, np.int64)
    for row, example in enumerate(group):
        for array, language, ids in (
            (source, example.source_language, example.source),
            (labels, example.target_language, example.target),
        ):
            array[row, 0] = vocabulary.language_ids[language]
            array[row, 1 : len(ids) + 1] = ids
            array[row, len(ids) + 1] = EOS
    decoder_input = np.full_like(labels, EOS)
    decoder_input[:, 1:] = np.where(labels[:, :-1] == IGNORED, PAD, labels[:, :-1])
    return Batch(*map(torch.from_numpy, (source, decoder_input, labels)))
