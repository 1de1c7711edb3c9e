"""From the texts of a document to what is sent for translation: long texts go in several pieces."""

import re
from collections.abc import Iterable, Iterator

from document_formats.spans import Span

MOST_CHARS = 5_000  # of a piece; half of what a record may hold
_SURROGATE = re.compile("[\ud800-\udfff]")
# Where a text is cut, best first: behind a line, a sentence, a space.
_BREAKS = (
    re.compile(r".*[\r\n]", re.DOTALL),
    re.compile(r".*(?:[。！？]|[.!?…]\s)", re.DOTALL),
    re.compile(r".*\s", re.DOTALL),
)


def pieces(text: str) -> list[str]:
    """A text in pieces of at most ``MOST_CHARS``; joined they are the text."""
    found, at = [], 0
    while len(text) - at > MOST_CHARS:
        end = at + MOST_CHARS
        breaks = (pattern.match(text, at, end) for pattern in _BREAKS)
        cut = next((match.end() for match in breaks if match), end)
        found.append(text[at:cut])
        at = cut
    return [*found, text[at:]]


def sendable(text: str) -> bool:
    """Half of a surrogate pair, which JSON can spell, is no character that could be sent."""
    return _SURROGATE.search(text) is None


def texts(spans: Iterable[Span]) -> Iterator[str]:
    """What is sent, in order."""
    for span in spans:
        if sendable(span.text):
            yield from pieces(span.text)


def count(spans: Iterable[Span]) -> int:
    """Texts that count towards a document's progress: what is sent, and what cannot be."""
    return sum(len(pieces(span.text)) if sendable(span.text) else 1 for span in spans)
