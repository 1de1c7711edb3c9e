"""CSV: the cells of named columns are translated; quoting, separators and all other cells stay.

The csv module reads quoting but does not tell which cells had it, so that cells are found by their
place here (RFC 4180, and any of four separators).
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from document_formats.spans import Malformed, Span, collect

SEPARATORS = (",", ";", "\t", "|")
MAX_COLUMNS = 10_000  # a row is held as a whole
MAX_CELLS = 2_000_000  # some two seconds of work
Cell = tuple[int, int, int, str]  # start, end, line, text


@cache
def _cells_of(separator: str) -> re.Pattern[str]:
    mark = re.escape(separator)
    # A quoted or a bare cell, then what ends it; anything else after a quoted cell is a mistake.
    return re.compile(
        rf'(?:"((?:[^"]++|"")*+)"|((?!")[^{mark}\r\n]*+))({mark}|\r\n|\r|\n|\Z)',
    )


def rows(text: str, separator: str) -> Iterator[list[Cell]]:
    """The cells of each row. Raises Malformed at a cell that is not closed."""
    pattern, at, line, row = _cells_of(separator), 0, 1, list[Cell]()
    for _ in range(MAX_CELLS):
        match = pattern.match(text, at)
        if match is None:
            raise _unclosed(text, at, line, separator)
        quoted = match[1] is not None
        words = match[1].replace('""', '"') if quoted else match[2]
        row.append((at, match.start(3), line, words))
        if len(row) > MAX_COLUMNS:
            raise Malformed(
                "too_many_columns",
                f"The row that ends on line {line} has more than {MAX_COLUMNS:,} cells.",
                line=line,
            )
        line += _line_ends(match[1]) if quoted else 0
        at = match.end()
        if match[3] != separator:
            if len(row) > 1 or row[0][0] != row[0][1]:
                yield row
            if not match[3] or at == len(text):
                return
            line, row = line + 1, []
    raise Malformed(
        "too_many_cells", f"The file has more than {MAX_CELLS:,} cells. Split it.", line=line
    )


def _line_ends(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


def _unclosed(text: str, at: int, line: int, separator: str) -> Malformed:
    closed = re.compile(r'"(?:[^"]++|"")*+"').match(text, at)
    if closed:
        return Malformed(
            "malformed_csv",
            f"Line {line + _line_ends(closed[0])}: text follows the closing quote of a cell. Double"
            " the quotes inside a quoted cell.",
            line=line + _line_ends(closed[0]),
        )
    return Malformed(
        "malformed_csv",
        f"The quoted cell that begins on line {line} is never closed.",
        line=line,
    )


def split(text: str, names: Sequence[str]) -> list[Span]:
    """The cells of the columns called ``names`` in the first row."""
    separator, wanted = _header(text, names)
    return collect(_texts(text, separator, wanted))


def _texts(text: str, separator: str, wanted: frozenset[int]) -> Iterator[Span]:
    found = rows(text, separator)
    next(found)
    for row in found:
        for place in sorted(wanted):
            if place < len(row):
                yield Span(*row[place])


def _header(text: str, names: Sequence[str]) -> tuple[str, frozenset[int]]:
    """The separator under which the first row holds all the names, and the columns' places."""
    best: list[str] = []
    fault: Malformed | None = None
    for separator in SEPARATORS:
        try:
            header = [cell[3].strip() for cell in next(rows(text, separator), [])]
        except Malformed as error:
            fault = fault or error
            continue
        if all(name in header for name in names):
            return separator, frozenset(i for i, name in enumerate(header) if name in names)
        if len(header) > len(best):
            best = header
    if not best:
        raise fault or Malformed("malformed_csv", "The file has no header row.", line=1)
    missing = next(index for index, name in enumerate(names) if name not in best)
    raise Malformed(
        "unknown_column",
        f"columns[{missing}] is not in the header row, which has {len(best)} columns. Name columns"
        " exactly as the first row does.",
        line=1,
        field=f"columns[{missing}]",
    )


def write(raw: str, span: Span, translation: str) -> str:
    """Quoted if the cell was, or if any separator, quote or line end came in."""
    if raw.startswith('"') or any(char in translation for char in ('"', "\r", "\n", *SEPARATORS)):
        return '"' + translation.replace('"', '""') + '"'
    return translation
