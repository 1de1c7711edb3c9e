"""Token ids of M2M100 checkpoints: SentencePiece through a lookup table, with no state to share.

The ids are those of transformers' M2M100Tokenizer (without its splitting at special tokens: text
that reads like one stays text), at a tenth of the time: 5 µs a sentence against 36 to 85.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import sentencepiece

from inference_worker.languages import NUMBERINGS

VOCABULARY_FILE = "vocab.json"
PIECES_FILE = "sentencepiece.bpe.model"
TOKENIZER_FILE = "tokenizer_config.json"
LANGUAGES_FILE = "languages.json"

_BEGIN, _PAD, _END, _UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"
_SPECIAL = frozenset({_BEGIN, _PAD, _END, _UNKNOWN})


class VocabularyError(Exception):
    """The tokenizer files of a checkpoint are missing or do not fit together."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sentence as the encoder reads it, and how many of its pieces the model has never seen."""

    ids: tuple[int, ...]
    unknown: int


class Vocabulary:
    """The pieces and languages of one checkpoint. Safe to use from several threads.

    ``vocab.json`` numbers the pieces; language ``i`` of the checkpoint's numbering is token
    ``len(vocab) + i``. ``languages`` are the codes the checkpoint was trained on, from
    ``languages.json`` next to it, or else all that it numbers.
    """

    def __init__(self, folder: Path) -> None:
        try:
            numbers: dict[str, int] = json.loads((folder / VOCABULARY_FILE).read_bytes())
            self._pieces = sentencepiece.SentencePieceProcessor(
                model_file=str(folder / PIECES_FILE)
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise VocabularyError(f"{folder} has no usable tokenizer: {error}") from error
        if missing := _SPECIAL - numbers.keys():
            raise VocabularyError(f"{folder / VOCABULARY_FILE} lacks {', '.join(sorted(missing))}")
        self.begin, self.pad = numbers[_BEGIN], numbers[_PAD]
        self.end, self.unknown = numbers[_END], numbers[_UNKNOWN]
        self._numbers = {piece: at for piece, at in numbers.items() if piece not in _SPECIAL}
        self._longest = max(map(len, self._numbers), default=1)  # characters of a piece
        self._table = [self._number(at) for at in range(self._pieces.get_piece_size())]
        self._strange = self._pieces.unk_id()
        self._texts = [""] * (max(numbers.values()) + 1)
        for piece, at in self._numbers.items():
            self._texts[at] = piece
        codes = NUMBERINGS[_numbering(folder)]
        self._languages = {code: len(numbers) + at for at, code in enumerate(codes)}
        self.languages = _trained(folder, self._languages)

    def _number(self, piece: int) -> int:
        if self._pieces.is_control(piece) or self._pieces.is_unknown(piece):
            return self.unknown
        return self._numbers.get(self._pieces.id_to_piece(piece), self.unknown)

    @cached_property
    def size(self) -> int:
        """The highest token id that text or a language can have, plus one."""
        return max(self._languages.values()) + 1

    def language(self, code: str) -> int:
        """The token of a language. Raises KeyError for one the checkpoint does not number."""
        return self._languages[code]

    def pieces(self, text: str) -> list[int]:
        """The ids of a text alone, without language and end."""
        found = self._pieces.encode(text)
        if self._strange not in found:
            return [self._table[piece] for piece in found]
        # SentencePiece does not know a character; the vocabulary may hold it all the same.
        surfaces = self._pieces.encode(text, out_type=str)
        return [
            self._numbers.get(surface, self.unknown)
            if piece == self._strange
            else self._table[piece]
            for piece, surface in zip(found, surfaces, strict=True)
        ]

    def count(self, text: str) -> int:
        """How many tokens the encoder reads for a sentence: its pieces, the language, the end."""
        return len(self._pieces.encode(text)) + 2

    def encode(self, text: str, language: str) -> Encoded:
        """A sentence as source of a translation: language token, pieces, ``</s>``."""
        ids = self.pieces(text)
        return Encoded((self._languages[language], *ids, self.end), ids.count(self.unknown))

    def respelled(self, text: str, language: str) -> Encoded:
        """The same, with pieces that the vocabulary lacks spelled in the longest ones it has."""
        ids: list[int] = []
        for piece in self._pieces.encode(text, out_type=str):
            ids += self._spelled(piece)
        return Encoded((self._languages[language], *ids, self.end), ids.count(self.unknown))

    def _spelled(self, piece: str) -> list[int]:
        ids, start = [], 0
        while start < len(piece):
            ends = range(min(len(piece), start + self._longest), start, -1)
            end = next((end for end in ends if piece[start:end] in self._numbers), start + 1)
            ids.append(self._numbers.get(piece[start:end], self.unknown))
            start = end
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of generated ids; special and language tokens leave no trace."""
        top = len(self._texts)
        pieces = [self._texts[at] for at in ids if at < top and self._texts[at]]
        return str(self._pieces.decode(pieces)).strip()


def _numbering(folder: Path) -> str:
    try:
        settings = json.loads((folder / TOKENIZER_FILE).read_bytes())
    except FileNotFoundError:
        settings = {}
    except ValueError as error:
        raise VocabularyError(f"{folder / TOKENIZER_FILE} is not JSON: {error}") from error
    name = settings.get("language_codes", "m2m100")
    if name not in NUMBERINGS:
        raise VocabularyError(f"{folder / TOKENIZER_FILE} numbers languages as {name!r}")
    return str(name)


def _trained(folder: Path, numbered: Iterable[str]) -> tuple[str, ...]:
    path = folder / LANGUAGES_FILE
    if not path.exists():
        return tuple(sorted(numbered))
    try:
        codes = json.loads(path.read_bytes())
    except ValueError as error:
        raise VocabularyError(f"{path} is not JSON: {error}") from error
    known = set(numbered)
    if not isinstance(codes, list) or not codes or not all(code in known for code in codes):
        raise VocabularyError(f"{path} must be a list of language codes that M2M100 knows")
    return tuple(sorted(set(codes)))
