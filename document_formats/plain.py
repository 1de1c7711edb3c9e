"""Plain text: each line is a text, line ends and blank lines stay."""

import re
from collections.abc import Iterator, Sequence

from document_formats.spans import Span, collect

_LINE = re.compile(r"[^\r\n]+")
_LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")


def lines(text: str) -> Iterator[Span]:
    """Each line that is not empty; ``\\r\\n``, ``\\n`` and a lone ``\\r`` end a line."""
    number, at = 1, 0
    for match in _LINE.finditer(text):
        start, end = match.span()
        number += (
            text.count("\n", at, start)
            + text.count("\r", at, start)
            - text.count("\r\n", at, start)
        )
        at = end
        yield Span(start, end, number, match[0])


def split(text: str, names: Sequence[str]) -> list[Span]:
    """Every line is a text; there are no names."""
    return collect(lines(text))


def write(raw: str, span: Span, translation: str) -> str:
    """A line stays one line."""
    return _LINE_ENDS.sub(" ", translation)
