"""A few hundred real sentence pairs, so that the training code runs in seconds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from models.training.network import Shape
from models.training.settings import Settings
from models.training.tsv import Pair, write_pairs

SMALL = Path(__file__).parents[2] / "models" / "small"
WORDS = {
    "en": ["the cat", "sleeps", "my father", "reads a book", "in the morning", "we", "eat bread"],
    "de": ["die Katze", "schläft", "mein Vater", "liest ein Buch", "am Morgen", "wir", "essen"],
    "ja": ["猫は", "寝る", "父は", "本を読む", "朝に", "私たちは", "パンを食べる"],
}


def make_pairs(first: str, second: str, count: int) -> list[Pair]:
    """Distinct pairs of between one and seven phrases."""

    def phrases(language: str, number: int) -> str:
        joint = "" if language == "ja" else " "
        chosen = [word for bit, word in enumerate(WORDS[language]) if number >> bit & 1]
        return joint.join(chosen)

    pairs = (
        Pair(first, second, phrases(first, number), phrases(second, number), f"jpn#{number}")
        for number in range(1, 128)
    )
    return list(islice(pairs, count))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with small train and dev files."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_pairs(folder / "train.tsv.gz", make_pairs("en", "ja", 100) + make_pairs("de", "en", 60))
    write_pairs(folder / "dev.tsv.gz", make_pairs("en", "ja", 127)[100:])
    return folder


@pytest.fixture
def settings(data: Path, tmp_path: Path) -> Settings:
    """A network of 0.3 million parameters, trained for eight steps with dropout."""
    return Settings(
        data=data,
        tokenizer=SMALL,
        out=tmp_path / "run",
        shape=Shape(d_model=32, ffn=32, heads=2, encoder_layers=1, decoder_layers=1, dropout=0.1),
        weights="en-ja:2,de-en:1",
        steps=8,
        tokens=200,
        warmup_steps=4,
    )
