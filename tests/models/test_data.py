from __future__ import annotations

import random
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from models.training.data import (
    IGNORED,
    Example,
    collate,
    draw_examples,
    group_by_length,
    load_pools,
    parse_weights,
    stream_groups,
)
from models.training.tokenizer import EOS, PAD, Vocabulary

SMALL = Path(__file__).parents[2] / "models" / "small"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(SMALL)


def example(source_tokens: int, target_tokens: int) -> Example:
    return Example(
        "en", "ja", np.full(source_tokens, 10, np.int32), np.full(target_tokens, 11, np.int32)
    )


def test_weights_name_pairs_in_either_order() -> None:
    assert parse_weights("ja-en:3,de-en:1") == {("en", "ja"): 3.0, ("de", "en"): 1.0}


@pytest.mark.parametrize("text", ["", "en:3", "en-ja:0", "en-ja", "en-ja:x"])
def test_malformed_weights_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a weighted language pair"):
        parse_weights(text)


def test_a_round_visits_every_line_in_both_directions(data: Path, vocabulary: Vocabulary) -> None:
    pools = load_pools([data / "train.tsv.gz"], vocabulary, [("de", "en")], max_tokens=40)
    drawn = islice(draw_examples(pools, {("de", "en"): 1.0}, random.Random(1)), 120)
    counts = Counter((e.source_language, e.source.tobytes(), e.target.tobytes()) for e in drawn)
    assert len(pools["de", "en"]) == 60
    assert set(counts.values()) == {1}
    assert Counter(language for language, *_ in counts) == {"de": 60, "en": 60}


def test_pairs_are_drawn_by_weight(data: Path, vocabulary: Vocabulary) -> None:
    weights = parse_weights("en-ja:3,de-en:1")
    pools = load_pools([data / "train.tsv.gz"], vocabulary, weights, max_tokens=40)
    drawn = list(islice(draw_examples(pools, weights, random.Random(1)), 4000))
    japanese = sum("ja" in (e.source_language, e.target_language) for e in drawn)
    assert japanese / len(drawn) == pytest.approx(0.75, abs=0.03)


def test_a_weight_without_sentences_is_an_error(data: Path, vocabulary: Vocabulary) -> None:
    weights = parse_weights("en-ja:1,es-fr:1")
    pools = load_pools([data / "train.tsv.gz"], vocabulary, weights, max_tokens=40)
    with pytest.raises(ValueError, match="no training sentences for"):
        next(draw_examples(pools, weights, random.Random(1)))


def test_groups_hold_like_lengths_within_their_budget() -> None:
    rng = random.Random(1)
    examples = [example(rng.randint(1, 30), rng.randint(1, 30)) for _ in range(500)]
    groups = group_by_length(examples, 200, rng)
    assert Counter(map(id, examples)) == Counter(id(e) for group in groups for e in group)
    for group in groups:
        longest = max(max(len(e.source), len(e.target)) + 2 for e in group)
        assert longest * len(group) <= 200
    spread = [max(map(len, t)) - min(map(len, t)) for g in groups for t in [[e.target for e in g]]]
    assert sum(spread) / len(spread) < 3


def test_a_sentence_longer_than_the_budget_goes_alone() -> None:
    assert [len(group) for group in group_by_length([example(90, 90)], 50, random.Random(1))] == [1]


def test_the_stream_repeats_for_its_seed(data: Path, vocabulary: Vocabulary) -> None:
    weights = parse_weights("en-ja:1,de-en:1")
    pools = load_pools([data / "train.tsv.gz"], vocabulary, weights, max_tokens=40)

    def sources(seed: str) -> list[bytes]:
        groups = islice(stream_groups(pools, weights, 200, seed), 5)
        return [e.source.tobytes() for group in groups for e in group]

    assert sources("1/0") == sources("1/0")
    assert sources("1/0") != sources("1/1")


def test_a_batch_has_the_layout_of_m2m100(vocabulary: Vocabulary) -> None:
    english, japanese = vocabulary.language_ids["en"], vocabulary.language_ids["ja"]
    batch = collate([example(2, 1), example(1, 3)], vocabulary)
    assert batch.source.tolist() == [[english, 10, 10, EOS], [english, 10, EOS, PAD]]
    assert batch.labels.tolist() == [
        [japanese, 11, EOS, IGNORED, IGNORED],
        [japanese, 11, 11, 11, EOS],
    ]
    assert batch.decoder_input.tolist() == [
        [EOS, japanese, 11, EOS, PAD],
        [EOS, japanese, 11, 11, 11],
    ]
    assert batch.target_tokens == 8
