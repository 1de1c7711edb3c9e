"""A document taken apart: the stretches of text to translate, and the document put together again
around them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

MAX_TEXTS = 200_000  # a span costs some 300 bytes of memory: this bounds a document's


class Span(NamedTuple):
    """Where a text stands in the document, in characters, and what it says once unescaped."""

    start: int
    end: int
    line: int  # from 1
    text: str


class Malformed(Exception):
    """The document does not fit its format. ``field`` names the part of the upload to mend;
    ``line`` counts from 1 and is None where no single line is to blame. Never holds its text."""

    def __init__(self, code: str, detail: str, *, line: int | None = None, field: str = "file"):
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.line = line
        self.field = field


Split = Callable[[str, Sequence[str]], list[Span]]
Write = Callable[[str, Span, str], str]


def has_words(text: str) -> bool:
    """Whether there is anything to translate: numbers, signs and space alone stay as they are."""
    return any(char.isalpha() for char in text)


def collect(spans: Iterable[Span]) -> list[Span]:
    """The spans with words in them. Raises Malformed when there are more than ``MAX_TEXTS``."""
    kept = []
    for span in spans:
        if has_words(span.text):
            kept.append(span)
            if len(kept) > MAX_TEXTS:
                raise Malformed(
                    "too_many_texts",
                    f"The file holds more than {MAX_TEXTS:,} texts to translate. Split it.",
                    line=span.line,
                )
    return kept


def assemble(text: str, spans: Sequence[Span], translations: Sequence[str], write: Write) -> str:
    """The document with each span replaced; a translation that equals its source leaves the
    document's own spelling of it alone."""
    pieces, at = [], 0
    for span, translation in zip(spans, translations, strict=True):
        pieces.append(text[at : span.start])
        raw = text[span.start : span.end]
        pieces.append(raw if translation == span.text else write(raw, span, translation))
        at = span.end
    pieces.append(text[at:])
    return "".join(pieces)
