"""Numbers that a translation must not lose, as far as figures can be followed across languages."""

import re
from collections.abc import Set
from dataclasses import dataclass
from fractions import Fraction

from inference_worker.languages import unspaced

_DIGIT = re.compile(r"\d")
# 1,250.50 and 1.250,50 and 1 250,50: the separators differ, the digits do not.
_FIGURES = re.compile(r"\d+(?:['’\u00a0\u202f ](?=\d{3}(?!\d))\d+|[.,．，](?=\d)\d+)*")
_RUNS = re.compile(r"\d+")
_NUMERALS = re.compile(r"[〇零一二三四五六七八九十百千万億兆\d]+")
_DIGITS = {char: value for value, char in enumerate("〇一二三四五六七八九")} | {"零": 0}
_SMALL = {"十": 10, "百": 100, "千": 1_000}
_LARGE = {"万": 10**4, "億": 10**8, "兆": 10**12}

# Words and signs that multiply the number before them: 5 million, 5 Mio., 5千.
_MULTIPLIERS = re.compile(
    r"mil|mio|mrd|thous|taus|tsd|hund|cent|cien|bil|tril|doz|dutz|duz|lakh|crore|тыс|мил|млн|млрд"
    r"|\d ?(?:k|m|bn)\b|[百千万萬億亿兆만억]",
    re.IGNORECASE,
)

_MOST_DIGITS = 40
_GROUP_DIGITS = 3  # after the last separator; another number of them are decimals
# Not counting final zeros: 30 or 2,000 are spelled out as often as not, 1987 is not.
_EXACT_DIGITS = 3
# 5 million is 500万: a power of ten may differ, but 10 alone only as in 77.8 billion and 778億.
_LEAST_SCALE = 100
_HALF_HOUR = 30  # 2時半, half past two
_CLOCK = 24
_DECADES = range(1_000, 2_100, 10)  # the 1950s, les années 50
_CENTURY = 100


@dataclass(frozen=True, slots=True)
class Figure:
    """A number written with digits: where, all its digits as one number, how many of them are
    decimals, and what lies between its separators."""

    span: tuple[int, int]
    digits: int
    decimals: int
    runs: frozenset[int]

    @property
    def value(self) -> Fraction:
        return Fraction(self.digits, 10**self.decimals)


def lost(source: str, translation: str, target: str) -> list[Figure]:
    """The numbers of the source that the translation lacks, in whatever notation.

    Only what is written with digits is followed. A number of few significant digits counts only
    where it cannot have been spelled out: in a language whose numerals are read here, or where the
    translation has a figure instead that the source lacks.
    """
    if not _DIGIT.search(source):
        return []
    wanted, found = figures(source), figures(translation)
    there = _values(translation, found)
    scaled = bool(_MULTIPLIERS.search(source) or _MULTIPLIERS.search(translation))
    missing = [
        figure  # 9:00 is 9時
        for figure in wanted
        if figure.digits and not _present(figure, there, scaled)
    ]
    if missing:
        known = [
            numeral.span()
            for numeral in _NUMERALS.finditer(source)
            if _among(Fraction(value(numeral.group())), there, scaled)
        ]
        missing = [figure for figure in missing if not _within(figure, known)]
    if not missing:
        return []
    here = _values(source, wanted)
    changed = any(not _present(figure, here, scaled) for figure in found)
    return [
        figure
        for figure in missing
        if changed or _exact(figure) or _read(figure, translation, target)
    ]


def figures(text: str) -> list[Figure]:
    """The numbers of a text that are written with digits of any script."""
    found = []
    for match in _FIGURES.finditer(text):
        runs = [run.group() for run in _RUNS.finditer(match.group())]
        grouped = len(runs) == 1 or len(runs[-1]) == _GROUP_DIGITS
        if not grouped and any(len(run) != _GROUP_DIGITS for run in runs[1:-1]):
            # 3.5.2024 is no number, but three of them.
            found += [
                _figure([run.group()], run.span(), 0) for run in _RUNS.finditer(text, *match.span())
            ]
        else:
            found.append(_figure(runs, match.span(), 0 if grouped else len(runs[-1])))
    return [figure for figure in found if figure is not None]


def _figure(runs: list[str], span: tuple[int, int], decimals: int) -> Figure | None:
    """None for what is too long to be a number."""
    digits = "".join(runs)
    if len(digits) > _MOST_DIGITS:
        return None
    return Figure(span, int(digits), decimals, frozenset(map(int, runs)))


def _values(text: str, found: list[Figure]) -> Set[Fraction]:
    """What numbers a text may be said to have, of which ``found`` are the figures."""
    whole = numerals(text).union(*(figure.runs for figure in found))
    return {figure.value for figure in found} | set(map(Fraction, whole))


def numerals(text: str) -> set[int]:
    """The values of the numbers written with Chinese numerals, or with these and digits."""
    return {value(match.group()) for match in _NUMERALS.finditer(text)}


def value(numeral: str) -> int:
    """三百五 → 305, 一九八七 → 1987, 2万5千 → 25000."""
    total = section = digits = 0
    given = False
    for char in numeral[:_MOST_DIGITS]:
        if char in _LARGE:
            total += max(1, section + digits) * _LARGE[char]
            section, digits, given = 0, 0, False
        elif char in _SMALL:
            section += (digits if given else 1) * _SMALL[char]
            digits, given = 0, False
        else:
            digits = digits * 10 + (_DIGITS[char] if char in _DIGITS else int(char))
            given = True
    return total + section + digits


def _within(figure: Figure, spans: list[tuple[int, int]]) -> bool:
    """Whether a figure is a part of one of these numbers, as 9000 is of 765万9000."""
    first, last = figure.span
    return any(start <= first and last <= end for start, end in spans)


def _present(figure: Figure, there: Set[Fraction], scaled: bool) -> bool:
    return figure.runs <= there or _among(figure.value, there, scaled)


def _among(number: Fraction, there: Set[Fraction], scaled: bool) -> bool:
    return number in there or any(_alike(number, other, scaled) for other in there)


def _alike(one: Fraction, other: Fraction, scaled: bool) -> bool:
    """Whether two numbers may be the same with other units, on another clock, or as a decade."""
    low, high = sorted((one, other))
    if high - low == _CLOCK // 2 and high <= _CLOCK:
        return True
    if low and high in _DECADES and high % _CENTURY == low:
        return True
    if not scaled or not low or high % low:
        return False
    factor, whole = high // low, low.denominator == high.denominator == 1
    return str(factor).rstrip("0") == "1" and (factor >= _LEAST_SCALE or not whole)


def _exact(figure: Figure) -> bool:
    return len(str(figure.digits).rstrip("0")) >= _EXACT_DIGITS


def _read(figure: Figure, translation: str, target: str) -> bool:
    """Whether the figure would have been found had it been spelled out."""
    return unspaced(target) and not (figure.digits % 100 == _HALF_HOUR and "半" in translation)
