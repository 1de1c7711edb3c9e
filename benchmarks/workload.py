"""What the benchmarks translate: sentences by Tatoeba contributors, alone or joined to paragraphs.

``corpus`` is one sentence each. ``paragraphs`` joins 1 to 30 sentences (60 % one, 25 % two to four,
12 % five to twelve, 3 % more), and one output in a hundred runs away to the length limit, as M2M100
does when it falls into a loop.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from inference_worker.engine.protocol import Sentence
from inference_worker.tokens import Vocabulary

SENTENCES = Path(__file__).parent / "sentences.tsv"
SMALL = Path(__file__).parents[1] / "models" / "small"
MIXES = ("corpus", "paragraphs")
SOURCE_TOKENS_MAX = 190
RUNAWAY_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Text:
    """A source text and its reference translation, with their languages."""

    source_language: str
    target_language: str
    source: str
    target: str


def read_texts() -> list[Text]:
    lines = SENTENCES.read_text("utf-8").splitlines()
    return [Text(*line.split("\t")) for line in lines if not line.startswith("#")]


def make_texts(mix: str, count: int, seed: int = 0) -> list[Text]:
    """``count`` texts of a mix in random order; the same for the same seed."""
    rng = random.Random(seed)
    texts = read_texts()
    if mix == "corpus":
        return rng.sample(texts, count)
    order = sorted(texts, key=lambda text: (text.source_language, text.target_language))
    pairs = [
        list(group)
        for _, group in groupby(order, lambda text: (text.source_language, text.target_language))
    ]
    return [joined(rng.choices(rng.choice(pairs), k=sentences_in(rng))) for _ in range(count)]


def sentences_in(rng: random.Random) -> int:
    """How many sentences a paragraph has."""
    share = rng.random()
    if share < 0.60:
        return 1
    if share < 0.85:
        return rng.randint(2, 4)
    return rng.randint(5, 12) if share < 0.97 else rng.randint(13, 30)


def joined(texts: Sequence[Text]) -> Text:
    """Some texts of one language pair as a paragraph."""
    first = texts[0]
    return Text(
        first.source_language,
        first.target_language,
        " ".join(text.source for text in texts),
        " ".join(text.target for text in texts),
    )


def small_sentences(mix: str, count: int) -> list[Sentence]:
    """A mix for the bundled model. Where it runs away is its own choice."""
    vocabulary = Vocabulary(SMALL)
    sentences = []
    for key, text in enumerate(make_texts(mix, count)):
        ids = vocabulary.encode(text.source, text.source_language).ids
        shortened = (*ids[: SOURCE_TOKENS_MAX - 1], ids[-1])
        source = ids if len(ids) <= SOURCE_TOKENS_MAX else shortened
        sentences.append(Sentence(key, source, vocabulary.language(text.target_language)))
    return sentences


def planned_lengths(mix: str, count: int, limit: int) -> list[tuple[int, int]]:
    """Source tokens and generated tokens (language and ``</s>`` included) of a mix, with the
    lengths of the reference translations in the bundled vocabulary."""
    vocabulary = Vocabulary(SMALL)
    rng = random.Random(1)
    lengths = []
    for text in make_texts(mix, count):
        source = min(SOURCE_TOKENS_MAX, vocabulary.count(text.source) + 2)
        output = min(limit - 1, vocabulary.count(text.target) + 2)
        runs_away = mix == "paragraphs" and rng.random() < RUNAWAY_SHARE
        lengths.append((source, limit - 1 if runs_away else output))
    return lengths
