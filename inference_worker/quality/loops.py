"""Repetition loops: the model says the same over and over."""

import re

# A stretch three times in a row, a short one four times, a single sign six times.
_LOOP = re.compile(r"(.{6,60}?)\1{2,}|(.{2,5}?)\2{3,}|(.)\3{5,}")
_LOOSELY = re.compile(r"(.)\1{3,}|(.{2,60}?)\2{2,}")  # "Bitte, bitte, bitte!"
_SIGNS = re.compile(r"[\W_]+")
_LEAST_TWICE = 3  # trigrams that come again in the shortest of these loops


def looped(text: str) -> int:
    """How often the most repeated stretch of the text comes in a row, signs and spaces aside; 0
    where nothing does."""
    folded = _folded(text)
    distinct = len(set(zip(folded, folded[1:], folded[2:], strict=False)))
    if len(folded) - 2 - distinct < _LEAST_TWICE:
        return 0
    return _most(_LOOP, folded)


def repeats(source: str, translation: str) -> bool:
    """Whether the translation loops where the source does not, or far longer."""
    found = looped(translation)
    return found > 0 and found > 2 * _most(_LOOSELY, _folded(source))


def _folded(text: str) -> str:
    return _SIGNS.sub("", text.casefold())


def _most(pattern: re.Pattern[str], folded: str) -> int:
    most = 0
    for match in pattern.finditer(folded):
        unit = next(filter(None, match.groups()))
        if not unit.isdigit():
            most = max(most, len(match.group()) // len(unit))
    return most
