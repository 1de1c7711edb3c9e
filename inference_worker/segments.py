"""Text to sentences and back. What lies between sentences (newlines, indentation, bullets, and
whatever has no letters to translate: numbers, emoji, bare placeholders and addresses) is kept as
it is; only the space between two sentences of a line follows the custom of the target language."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference_worker import protected
from inference_worker.boundaries import MOST_CHARS_PER_TOKEN, Spans, fitting, sentence_ends
from inference_worker.languages import unspaced

# As str.splitlines sees lines; a tab separates cells, which a model would run together.
_SEPARATOR = re.compile("\r\n|[\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\t]")
_LABEL = re.compile(r"(?:[-*+•‣◦·–—>#]+|\(?\d{1,3}[.)]|\(?[A-Za-z][)])(?=\s)")
_STOPS = "。！？｡．.!?…"
_IDEOGRAPHIC_SPACE = "\u3000"

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text with no space around it: a sentence, or something to keep as it is."""

    text: str
    sentence: bool


@dataclass(frozen=True, slots=True)
class Segments:
    """A text taken apart: ``gaps[i]`` stands before ``parts[i]``, the last gap after all parts."""

    source: str
    parts: tuple[Part, ...]
    gaps: tuple[str, ...]

    @property
    def sentences(self) -> list[str]:
        """What there is to translate, in order."""
        return [part.text for part in self.parts if part.sentence]

    def join(self, translations: Sequence[str], target: str) -> str:
        """The text with its sentences replaced. With the sentences themselves as translations and
        the source's custom of spacing it is the original, byte for byte."""
        rest = iter(translations)
        texts = [next(rest) if part.sentence else part.text for part in self.parts]
        joined = [self.gaps[0]]
        for at, text in enumerate(texts):
            if at:
                joined.append(self._gap(at, texts[at - 1], target))
            joined.append(text)
        if texts:
            joined.append(self.gaps[-1])
        return "".join(joined)

    def _gap(self, at: int, before: str, target: str) -> str:
        gap = self.gaps[at]
        if unspaced(self.source) == unspaced(target) or _SEPARATOR.search(gap):
            return gap
        if unspaced(target):
            closed = self.parts[at - 1].sentence and _ends_wide(before)
            return "" if closed else gap
        if gap.strip(_IDEOGRAPHIC_SPACE):
            return gap
        ended = self.parts[at - 1].sentence or before.endswith(tuple(_STOPS))
        return " " if gap or ended else gap


def _ends_wide(text: str) -> bool:
    return bool(text) and unicodedata.east_asian_width(text[-1]) in "WF"


def split(text: str, language: str, count: Count, limit_tokens: int) -> Segments:
    """Takes a text apart into sentences of at most ``limit_tokens`` by ``count``."""
    builder = _Builder(count, limit_tokens)
    whole = Spans(protected.spans(text) if "\t" in text else [])
    start = 0
    for match in _SEPARATOR.finditer(text):
        if match.group() == "\t" and whole.inside(match.start()):
            continue
        builder.line(text[start : match.start()], language)
        builder.gap(match.group())
        start = match.end()
    builder.line(text[start:], language)
    return builder.done(language)


class _Builder:
    def __init__(self, count: Count, limit_tokens: int) -> None:
        self._count = count
        self._limit_tokens = limit_tokens
        # More are spaces, or what the model does not know, which counts as little at any length.
        self._limit_chars = limit_tokens * MOST_CHARS_PER_TOKEN
        self._parts: list[Part] = []
        self._gaps: list[str] = [""]

    def _fits(self, text: str) -> bool:
        return len(text) <= self._limit_chars and self._count(text) <= self._limit_tokens

    def gap(self, text: str) -> None:
        self._gaps[-1] += text

    def line(self, line: str, language: str) -> None:
        body = line.lstrip()
        self.gap(line[: len(line) - len(body)])
        if label := _LABEL.match(body):
            self._keep(label.group())
            body = body[label.end() :]
        start = 0
        for end in sentence_ends(body, language):
            self._stretch(body[start:end])
            start = end
        self._stretch(body[start:])

    def _stretch(self, text: str) -> None:
        """One sentence with the space around it."""
        body = text.strip()
        if not body:
            self.gap(text)
            return
        lead = len(text) - len(text.lstrip())
        self.gap(text[:lead])
        if not _has_words(body):
            self._keep(body)
        elif self._fits(body):
            self._add(Part(body, sentence=True))
        else:
            for piece in fitting(body, self._fits, self._limit_tokens):
                self._piece(piece)
        self.gap(text[lead + len(body) :])

    def _piece(self, piece: str) -> None:
        body = piece.strip()
        if not body:
            self.gap(piece)
            return
        lead = len(piece) - len(piece.lstrip())
        self.gap(piece[:lead])
        if _has_words(body) and self._fits(body):
            self._add(Part(body, sentence=True))
        else:
            self._keep(body)
        self.gap(piece[lead + len(body) :])

    def _keep(self, text: str) -> None:
        self._add(Part(text, sentence=False))

    def _add(self, part: Part) -> None:
        self._parts.append(part)
        self._gaps.append("")

    def done(self, language: str) -> Segments:
        return Segments(language, tuple(self._parts), tuple(self._gaps))


def _has_words(text: str) -> bool:
    """Whether anything but numbers, signs and protected spans is left to translate."""
    return any(char.isalpha() for char in protected.without(text))
