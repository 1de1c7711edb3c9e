"""SubRip subtitles: the words of each cue are translated; counters, timings and the markup around
the words stay.

There is no standard; read as players do: a cue begins with its timing line, the counter before it
may be missing, and a blank line inside a cue does not end it unless a timing follows.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

from document_formats.plain import lines, write
from document_formats.spans import Malformed, Span, collect

__all__ = ["split", "write"]

_TIME = r"\d{1,3}:\d{1,2}:\d{1,2}(?:[,.]\d{1,3})?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_ALMOST = re.compile(r"(?=.*\d[:;.,]\s?\d).*-->.*")  # times around the arrow, but no timing
_COUNTER = re.compile(r"\s*\d+\s*")
# Italics, colours and positions around a line; a model would lose them.
_LEADING = re.compile(r"(?:<[^<>]{1,100}>|\{[^{}]{1,100}\}|\s)*+")
_LAST = re.compile(r"<[^<>]{1,100}>|\{[^{}]{1,100}\}")
MOST_CLOSING = 8
MOST_MARKUP_CHARS = 102


def split(text: str, names: Sequence[str]) -> list[Span]:
    """What is said, line by line; counters, times and markup around a line stay. Raises
    Malformed."""
    return collect(_texts(text))


def _texts(text: str) -> Iterator[Span]:
    begun = False
    nothing = Span(0, 0, 0, "")
    for line, following in pairwise(chain(lines(text), [nothing])):
        if _TIMING.fullmatch(line.text):
            begun = True
            continue
        counts = _COUNTER.fullmatch(line.text) is not None
        counts = counts and _TIMING.fullmatch(following.text) is not None
        if counts or not line.text.strip():
            continue
        if "-->" in line.text and _ALMOST.fullmatch(line.text):
            raise _malformed(
                f"Line {line.line} looks like a timing line but is none. Write it as"
                " 00:00:01,000 --> 00:00:02,500.",
                line.line,
            )
        if not begun:
            raise _malformed(
                f"Line {line.line} stands before the first timing line. A cue is a counter, a line"
                " such as 00:00:01,000 --> 00:00:02,500, and its text.",
                line.line,
            )
        yield _inside(line)
    if not begun:
        raise _malformed("The file holds no timing line such as 00:00:01,000 --> 00:00:02,500.", 1)


def _inside(line: Span) -> Span:
    """The line without the markup and the space around it."""
    text = line.text
    leading = _LEADING.match(text)
    start = leading.end() if leading else 0
    end = len(text.rstrip())
    for _ in range(MOST_CLOSING):
        opened = max(text.rfind(mark, max(start, end - MOST_MARKUP_CHARS), end) for mark in "<{")
        if opened < 0 or not _LAST.fullmatch(text, opened, end):
            break
        end = opened
    return Span(line.start + start, line.start + end, line.line, text[start:end])


def _malformed(detail: str, line: int) -> Malformed:
    return Malformed("malformed_subrip", detail, line=line)
