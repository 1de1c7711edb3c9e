"""Repetition loops: the model says the same over and over."""

import re

# A stretch three times in a row, a short one four times, a single sign six times.
_LOOP = re.compile(r"(.{6,60}?)\1{2,}|(.{2,5}?)\2{3,}|(.)\3{5,}")
_SIGNS = re.compile(r"[\W_]+")
_LEAST_TWICE = 3  # trigrams that come again in the shortest of these loops


def looped(text: str) -> int:
    """How often the most repeated stretch of the text comes in a row, signs and spaces aside; 0
    where nothing does."""
    folded = _SIGNS.sub("", text.casefold())
    distinct = len(set(zip(folded, folded[1:], folded[2:], strict=False)))
    if len(folded) - 2 - distinct < _LEAST_TWICE:
        return 0
    most = 0
    for match in _LOOP.finditer(folded):
        unit = match.group(1) or match.group(2) or match.group(3)
        if not unit.isdigit():
            most = max(most, len(match.group()) // len(unit))
    return most


def repeats(source: str, translation: str) -> bool:
    """Whether the translation loops where the source does not, or far longer."""
    found = looped(translation)
    return found > 0 and found > 2 * looped(source)
