"""Where a line of text may be cut: sentence ends, and finer places for what is still too long."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial

from inference_worker import protected
from inference_worker.languages import abbreviation, ordinal_dot

_WIDE_STOPS = "。！？｡．"
_CLOSERS = "\"'”’»)\\]」』）】〕》〉*_"
_OPENERS = "\"'“‘«‹([{「『（【〔《〈¿¡*_-–— "
_STOP = re.compile(rf"([.!?…‼⁇⁈⁉؟۔।॥։።፧።။៕{_WIDE_STOPS}]+)([{_CLOSERS}]*)")
_CLAUSE = re.compile(rf"[,;:،؛፣—–][{_CLOSERS}]*(?=\s)|[、，；：][{_CLOSERS}]*")
_SPACE = re.compile(r"\s+")
_WIDE_BRACKETS = dict(zip("「『（【〔《〈", "」』）】〕》〉", strict=True))
_WIDE_CLOSERS = frozenset(_WIDE_BRACKETS.values())
_WORD_CHARS = 40  # how far back the word before a full stop is looked for
_ORDINAL_DIGITS = 2  # "am 3. Oktober"; a year ends a sentence
_JOINERS = frozenset("\u200d\ufe0e\ufe0f")
MOST_CHARS_PER_TOKEN = 16  # no piece of a vocabulary is longer, so no cut lies further away


class Spans:
    """Spans of a line that no cut may fall into."""

    def __init__(self, spans: list[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]

    def inside(self, start: int, offset: int = 0) -> bool:
        """Whether a cut at ``start + offset`` would take a span apart."""
        position = start + offset
        at = bisect_right(self._starts, position - 1) - 1
        return at >= 0 and position < self._ends[at]


def sentence_ends(line: str, language: str) -> list[int]:
    """Positions after which a new sentence starts; the end of the line is not among them."""
    ends = [match.end() for match in _STOP.finditer(line) if _ends_sentence(line, match, language)]
    if not ends:
        return ends
    whole, quoted = Spans(protected.spans(line)), Spans(_quotations(line))
    return [end for end in ends if not whole.inside(end) and not quoted.inside(end)]


def _quotations(line: str) -> list[tuple[int, int]]:
    """Outermost pairs of wide brackets: a quotation stays with the words that introduce it."""
    found: list[tuple[int, int]] = []
    opened: list[tuple[int, str]] = []
    for position, char in enumerate(line):
        if char in _WIDE_BRACKETS:
            opened.append((position, _WIDE_BRACKETS[char]))
        elif opened and char == opened[-1][1]:
            start, _ = opened.pop()
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, position + 1))
    return found


def _ends_sentence(line: str, match: re.Match[str], language: str) -> bool:
    stop, closers = match.groups()
    following = line[match.end() : match.end() + 1]
    if not following:
        return False
    if stop[-1] in _WIDE_STOPS or (stop[-1] in "!?" and _wide(following)):
        if stop == "．" and following.isdigit():
            return False
        # 「はい。」と言った: what hiragana follow goes on.
        return not (_WIDE_CLOSERS.intersection(closers) and "ぁ" <= following <= "ゟ")
    if not following.isspace():
        return False
    start = line[match.end() : match.end() + _WORD_CHARS].lstrip().lstrip(_OPENERS)[:1]
    if start.islower():
        return False
    if stop != "." or closers:
        return True
    words = line[max(0, match.start() - _WORD_CHARS) : match.start()].split()
    word = words[-1].lstrip(_OPENERS) if words and line[match.start() - 1] != " " else ""
    if word.isdigit():
        return not (ordinal_dot(language) and len(word) <= _ORDINAL_DIGITS)
    if len(word) == 1 and (word.isupper() or word.islower()):
        return False
    return not abbreviation(word, language, start.isdigit())


def _wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF" and char.isalpha()


def fitting(text: str, fits: Callable[[str], bool], limit_tokens: int) -> Iterator[str]:
    """Consecutive slices of ``text``, each within the limit where that is possible at all.

    Cuts fall at the last sentence end, else clause, else word, else character that still fits, and
    never into a protected span; a span too long by itself comes out as a slice that does not fit.
    """
    whole = Spans(protected.spans(text))
    reach_chars = limit_tokens * MOST_CHARS_PER_TOKEN
    start = 0
    while start < len(text) and not fits(rest := text[start:]):
        at = _cut(rest, fits, reach_chars, partial(whole.inside, start))
        yield rest[:at]
        start += at
    if start < len(text):
        yield text[start:]


def _cut(
    text: str, fits: Callable[[str], bool], reach_chars: int, barred: Callable[[int], bool]
) -> int:
    """The best place to cut a text that does not fit; ``barred`` places are inside spans."""
    for places in (_stops(text), _clauses(text), _words(text), _characters(text)):
        positions = []
        for position in places:
            if position >= min(len(text), reach_chars):
                break
            if position > 0 and not barred(position):
                positions.append(position)
        low, high = 0, len(positions)
        while low < high:
            middle = (low + high) // 2
            if fits(text[: positions[middle]]):
                low = middle + 1
            else:
                high = middle
        if low and not text[: positions[low - 1]].isspace():
            return positions[low - 1]
    # Nothing fits: the text starts with a span that is too long, or with a character that is, be
    # it for all its marks; or with the space in front of such a one.
    if space := _SPACE.match(text):
        return space.end()
    return next((at for at in _characters(text) if not barred(at)), len(text))


def _stops(text: str) -> Iterator[int]:
    for match in _STOP.finditer(text):
        if match.group(1)[-1] in _WIDE_STOPS or text[match.end() : match.end() + 1].isspace():
            yield match.end()


def _clauses(text: str) -> Iterator[int]:
    return (match.end() for match in _CLAUSE.finditer(text))


def _words(text: str) -> Iterator[int]:
    return (match.start() for match in _SPACE.finditer(text))


def _characters(text: str) -> Iterator[int]:
    """Every position that does not tear a letter from its marks or an emoji apart."""
    for position in range(1, len(text)):
        char = text[position]
        if char in _JOINERS or text[position - 1] == "\u200d" or unicodedata.combining(char):
            continue
        yield position
