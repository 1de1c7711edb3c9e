"""Plain text: each line is a text, line ends and blank lines stay."""

import re
from collections.abc import Sequence

from document_formats.spans import Span, collect

LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")


def split(text: str, names: Sequence[str]) -> list[Span]:
    return collect(
        Span(match.start(1), match.end(1), number, match[1])
        for number, match in enumerate(LINE.finditer(text), 1)
    )


def write(raw: str, span: Span, translation: str) -> str:
    """A line stays one line."""
    return _LINE_ENDS.sub(" ", translation)
