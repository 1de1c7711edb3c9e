"""The vocabulary of the small model: trains a SentencePiece model with byte fallback, writes the
files that transformers' M2M100Tokenizer loads, and turns text into ids without it. The id layout is
M2M100's: four control tokens, the pieces, then one token for each of 100 languages."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import sentencepiece

from models.training.tsv import read_pairs

PIECES_FILE = "sentencepiece.bpe.model"
TOKENIZER_FILES = ("added_tokens.json", PIECES_FILE, "tokenizer_config.json", "vocab.json")
CONTROL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
PAD, EOS = 1, 2
# transformers appends 8 unused rows after the language tokens ("made-up words"), as fairseq did.
UNUSED_ROWS = 8
LANGUAGE_TOKENS = 100
# Japanese needs more of the pieces than its share of sentences; English would fill them otherwise.
SENTENCES_PER_LANGUAGE = {"en": 120_000, "ja": 200_000}
OTHER_SENTENCES = 60_000

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Vocabulary:
    """Text to ids: pieces through a lookup table, languages through `added_tokens.json`."""

    processor: sentencepiece.SentencePieceProcessor
    piece_ids: Ids
    language_ids: dict[str, int]
    size: int
    """Rows of the embedding, the unused ones included."""

    @classmethod
    def load(cls, folder: Path) -> Vocabulary:
        """Read the tokenizer files in `folder`; raises FileNotFoundError if one is missing."""
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / PIECES_FILE))
        vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
        added = json.loads((folder / "added_tokens.json").read_text("utf-8"))
        pieces = [vocab[processor.id_to_piece(i)] for i in range(processor.get_piece_size())]
        languages = {token.strip("_"): index for token, index in added.items()}
        size = len(vocab) + LANGUAGE_TOKENS + UNUSED_ROWS
        return cls(processor, np.asarray(pieces, np.int32), languages, size)

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text, without language and end tokens."""
        encoded = self.processor.encode(list(texts), num_threads=1)
        return [self.piece_ids[np.asarray(ids, np.int64)] for ids in encoded]


def normalisation_rules() -> dict[tuple[int, ...], tuple[int, ...]]:
    """Code points to code points, as SentencePiece takes them.

    NFC for Latin letters and kana, full-width alphanumerics to ASCII, half-width kana to full,
    plain quotes and spaces. SentencePiece's own nmt_nfkc would also turn ？！ into ASCII, and a
    Japanese sentence would come back with Western punctuation.
    """
    rules: dict[tuple[int, ...], tuple[int, ...]] = {}
    for first, last in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A)):
        rules |= {(code,): (code - 0xFEE0,) for code in range(first, last + 1)}
    spaces = (0x3000, 0xA0, 0x202F, 0x2009, 0x2002, 0x2003, 0x09, 0x0A, 0x0D)
    rules |= {(code,): (0x20,) for code in spaces}
    rules |= {(code,): () for code in (0x200B, 0x200E, 0x200F, 0xFEFF, 0xAD)}
    rules |= {(0x2018,): (0x27,), (0x2019,): (0x27,), (0x201C,): (0x22,), (0x201D,): (0x22,)}
    for code in range(0xFF61, 0xFFA0):
        rules[(code,)] = tuple(map(ord, unicodedata.normalize("NFKC", chr(code))))
    for block in (range(0xC0, 0x250), range(0x1E00, 0x1F00), range(0x3040, 0x3100)):
        for code in block:
            parts = unicodedata.normalize("NFD", chr(code))
            if len(parts) > 1 and unicodedata.normalize("NFC", parts) == chr(code):
                rules[tuple(map(ord, parts))] = (code,)
    return rules


def training_text(files: Iterable[Path], seed: int = 1) -> list[str]:
    """The distinct sentences of `files`, capped per language, in a reproducible order."""
    sentences: dict[str, set[str]] = defaultdict(set)
    for file in files:
        for pair in read_pairs(file):
            sentences[pair.source_language].add(pair.source)
            sentences[pair.target_language].add(pair.target)
    rng = random.Random(seed)
    chosen: list[str] = []
    for language in sorted(sentences):
        ordered = sorted(sentences[language])
        rng.shuffle(ordered)
        chosen += ordered[: SENTENCES_PER_LANGUAGE.get(language, OTHER_SENTENCES)]
    return chosen


def train_pieces(sentences: Sequence[str], pieces: int, out: Path) -> None:
    """Train a unigram model of `pieces` pieces on `sentences` and write it into `out`."""
    with tempfile.TemporaryDirectory() as scratch:
        text, rules = Path(scratch, "text"), Path(scratch, "rules.tsv")
        text.write_text("\n".join(sentences), "utf-8")
        rules.write_text(
            "".join(
                f"{' '.join(f'{code:X}' for code in key)}\t{' '.join(f'{c:X}' for c in value)}\n"
                for key, value in sorted(normalisation_rules().items())
            )
        )
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(Path(scratch, "pieces")),
            vocab_size=pieces,
            model_type="unigram",
            character_coverage=0.9996,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_tsv=str(rules),
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            input_sentence_size=600_000,
            shuffle_input_sentence=True,
            max_sentence_length=2000,
            minloglevel=2,
        )
        (out / PIECES_FILE).write_bytes(Path(scratch, "pieces.model").read_bytes())


def write_tokenizer(out: Path) -> int:
    """Write what M2M100Tokenizer reads beside the pieces; returns the number of embedding rows."""
    from transformers.models.m2m_100.tokenization_m2m_100 import (
        FAIRSEQ_LANGUAGE_CODES,
        M2M100Tokenizer,
    )

    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / PIECES_FILE))
    vocab = {token: index for index, token in enumerate(CONTROL_TOKENS)}
    for index in range(processor.get_piece_size()):
        vocab.setdefault(processor.id_to_piece(index), len(vocab))
    # Matrix kernels want a multiple of 8 rows.
    while (len(vocab) + LANGUAGE_TOKENS + UNUSED_ROWS) % 8:
        vocab[f"madeupvocab{len(vocab)}"] = len(vocab)
    vocab_file = out / "vocab.json"
    vocab_file.write_text(json.dumps(vocab, ensure_ascii=False, indent=0), "utf-8")
    # transformers 5 does not register the language tokens itself: unlisted, `__en__` would stay
    # in decoded text.
    languages = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    tokenizer = M2M100Tokenizer(
        str(vocab_file), str(out / PIECES_FILE), additional_special_tokens=languages
    )
    tokenizer.model_max_length = 1024
    tokenizer.save_pretrained(out)
    return len(vocab) + LANGUAGE_TOKENS + UNUSED_ROWS


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small model's tokenizer.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.*.tsv.gz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", type=int, default=12_000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train_pieces(training_text(sorted(args.data.glob("train*.tsv.gz"))), args.pieces, args.out)
    print(f"{write_tokenizer(args.out)} embedding rows, written to {args.out}")


if __name__ == "__main__":
    main()
