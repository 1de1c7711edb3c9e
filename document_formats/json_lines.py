"""JSON Lines: the strings under named fields are translated; keys, order, numbers, spacing and all
other values stay.

A field is a path such as ``title`` or ``meta.title``; in a list every element is meant. Strings are
found by their place, since decoding and encoding again would respell numbers and spacing.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from document_formats.plain import lines
from document_formats.spans import Malformed, Span, collect

_SPACE = re.compile(r"[ \t]*")
_ESCAPED = re.compile(r"\\u[0-9a-fA-F]{4}")
MAX_DEPTH = 64
MAX_LINE_CHARS = 1_000_000  # a line is decoded as a whole, into many times its size


def _refuse(constant: str) -> NoReturn:
    raise ValueError("JSON has no NaN or Infinity")


# Numbers stay text: a 6,000-digit integer is sound JSON.
_decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=_refuse)
_value: Callable[[str, int], tuple[Any, int]] = _decoder.raw_decode


def split(text: str, names: Sequence[str]) -> list[Span]:
    """The strings at these paths (``outer.inner``) of every line. Raises Malformed."""
    paths = [tuple(name.split(".")) for name in names]
    seen: set[tuple[str, ...]] = set()
    spans = collect(_texts(text, paths, seen))
    for index, path in enumerate(paths):
        if path not in seen:
            raise Malformed(
                "unknown_field",
                f"No line has a string at fields[{index}]. Name fields exactly as the lines do,"
                " nested ones as outer.inner.",
                field=f"fields[{index}]",
            )
    return spans


def _texts(
    text: str, paths: Sequence[tuple[str, ...]], seen: set[tuple[str, ...]]
) -> Iterator[Span]:
    for begin, _, number, line in lines(text):
        if not line.strip(" \t"):
            continue
        _check(line, number)
        found: list[tuple[int, int, str]] = []
        for path in paths:
            at = len(found)
            _walk(line, _skip(line, 0), path, found)
            if len(found) > at:
                seen.add(path)
        for start, end, words in sorted(set(found)):
            yield Span(begin + start, begin + end, number, words)


def _check(line: str, number: int) -> None:
    if len(line) > MAX_LINE_CHARS:
        raise Malformed(
            "line_too_long",
            f"Line {number} has more than {MAX_LINE_CHARS:,} characters. Each line must hold one"
            " object.",
            line=number,
        )
    try:
        value, end = _value(line, _skip(line, 0))
        if line[end:].strip(" \t"):
            raise ValueError("text follows the value")
    except RecursionError:
        raise Malformed(
            "too_deep", f"Line {number} is nested too deeply. Send flat records.", line=number
        ) from None
    except ValueError as error:
        at = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Malformed(
            "malformed_json",
            f"Line {number}{at} is not valid JSON. Each line must hold one whole object.",
            line=number,
        ) from None
    if not isinstance(value, dict):
        raise Malformed(
            "malformed_json",
            f"Line {number} is not an object. Each line must hold one object.",
            line=number,
        )


def _skip(line: str, at: int) -> int:
    match = _SPACE.match(line, at)
    return match.end() if match else at


def _walk(
    line: str, at: int, path: tuple[str, ...], found: list[tuple[int, int, str]], depth: int = 0
) -> int:
    """Notes the strings at ``path`` below the value that begins at ``at``; returns its end."""
    if line[at] == '"' and not path:
        words, end = _value(line, at)
        found.append((at, end, words))
        return end
    if line[at] == "[" and depth < MAX_DEPTH:
        return _walk_list(line, at, path, found, depth + 1)
    if line[at] == "{" and path and depth < MAX_DEPTH:
        return _walk_object(line, at, path, found, depth + 1)
    return _value(line, at)[1]


def _walk_list(
    line: str, at: int, path: tuple[str, ...], found: list[tuple[int, int, str]], depth: int
) -> int:
    at = _skip(line, at + 1)
    while line[at] != "]":
        at = _skip(line, _walk(line, at, path, found, depth))
        if line[at] == ",":
            at = _skip(line, at + 1)
    return at + 1


def _walk_object(
    line: str, at: int, path: tuple[str, ...], found: list[tuple[int, int, str]], depth: int
) -> int:
    at = _skip(line, at + 1)
    while line[at] != "}":
        key, at = _value(line, at)
        at = _skip(line, _skip(line, at) + 1)
        if key == ".".join(path):
            at = _walk(line, at, (), found, depth)
        elif key == path[0]:
            at = _walk(line, at, path[1:], found, depth)
        else:
            at = _value(line, at)[1]
        at = _skip(line, at)
        if line[at] == ",":
            at = _skip(line, at + 1)
    return at + 1


def write(raw: str, span: Span, translation: str) -> str:
    """Characters beyond ASCII are escaped only where the source spelled all of its own so."""
    return json.dumps(translation, ensure_ascii=raw.isascii() and bool(_ESCAPED.search(raw)))
