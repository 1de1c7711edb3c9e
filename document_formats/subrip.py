"""SubRip subtitles: the words of each cue are translated, counters and timings stay.

There is no standard; read as players do: a cue begins with its timing line, the counter before it
may be missing, and a blank line inside a cue does not end it unless a timing follows.
"""

import re
from collections.abc import Iterator, Sequence

from document_formats.plain import LINE
from document_formats.spans import Malformed, Span, collect

_TIME = r"\d{1,3}:\d{1,2}:\d{1,2}(?:[,.]\d{1,3})?"
_TIMING = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_ALMOST = re.compile(r"(?=.*\d[:;.,]\s?\d).*-->.*")  # times around the arrow, but no timing
_COUNTER = re.compile(r"\s*\d+\s*")
MAX_LINES = 1_000_000
_BLANK_LINES = re.compile(r"[^\S\r\n]*((?>\r\n|\r|\n))(?:[^\S\r\n]*(?>\r\n|\r|\n))+")


def split(text: str, names: Sequence[str]) -> list[Span]:
    return collect(_texts(text))


def _texts(text: str) -> Iterator[Span]:
    if text.count("\n") + text.count("\r") > MAX_LINES:
        raise Malformed("too_many_lines", f"The file has more than {MAX_LINES:,} lines. Split it.")
    lines = [(match.start(1), match.end(1), match[1]) for match in LINE.finditer(text)]
    timings = [_TIMING.fullmatch(line) is not None for _, _, line in lines] + [False]
    begun, first, last = False, None, 0  # the text gathered so far: its first line, its end
    for number, (_, end, line) in enumerate(lines):
        counts = timings[number + 1] and _COUNTER.fullmatch(line) is not None
        words = bool(line.strip()) and not timings[number] and not counts
        if words and not begun:
            raise Malformed(
                "malformed_subrip",
                f"Line {number + 1} stands before the first timing line. A cue is a counter, a line"
                " such as 00:00:01,000 --> 00:00:02,500, and its text.",
                line=number + 1,
            )
        if words and _ALMOST.fullmatch(line):
            raise Malformed(
                "malformed_subrip",
                f"Line {number + 1} looks like a timing line but is none. Write it as"
                " 00:00:01,000 --> 00:00:02,500.",
                line=number + 1,
            )
        begun = begun or timings[number]
        if words:
            first, last = (number if first is None else first), end
        elif first is not None:
            yield Span(lines[first][0], last, first + 1, text[lines[first][0] : last])
            first = None
    if first is not None:
        yield Span(lines[first][0], last, first + 1, text[lines[first][0] : last])
    if not begun:
        raise Malformed(
            "malformed_subrip",
            "The file holds no timing line such as 00:00:01,000 --> 00:00:02,500.",
            line=1,
        )


def write(raw: str, span: Span, translation: str) -> str:
    """No blank line may come in: it would end the cue."""
    return _BLANK_LINES.sub(r"\1", translation).strip("\r\n")
