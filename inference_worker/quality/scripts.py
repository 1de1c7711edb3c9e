"""Which scripts a language is written in, and whether a translation is in them."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

LATIN = "LATIN"
_JAPANESE = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC"})
_KANA = frozenset({"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"})


def _languages(codes: str, *scripts: str) -> dict[str, frozenset[str]]:
    return {code: frozenset(scripts) for code in codes.split()}


# The first word of a letter's Unicode name. Languages that are not here are written in Latin.
_SCRIPTS: dict[str, frozenset[str]] = (
    {"ja": _JAPANESE}
    | _languages("zh", "CJK", "IDEOGRAPHIC")
    | _languages("ko", "HANGUL", "CJK")
    | _languages("ba be bg kk mk mn ru uk", "CYRILLIC")
    | _languages("sr uz", "CYRILLIC", LATIN)
    | _languages("el", "GREEK")
    | _languages("hy", "ARMENIAN")
    | _languages("ka", "GEORGIAN")
    | _languages("he yi", "HEBREW")
    | _languages("ar fa ps sd ur", "ARABIC")
    | _languages("hi mr ne", "DEVANAGARI")
    | _languages("bn", "BENGALI")
    | _languages("gu", "GUJARATI")
    | _languages("pa", "GURMUKHI", "ARABIC")
    | _languages("or", "ORIYA")
    | _languages("ta", "TAMIL")
    | _languages("kn", "KANNADA")
    | _languages("ml", "MALAYALAM")
    | _languages("si", "SINHALA")
    | _languages("th", "THAI")
    | _languages("lo", "LAO")
    | _languages("my", "MYANMAR")
    | _languages("km", "KHMER")
    | _languages("am", "ETHIOPIC")
)
_DEFAULT = frozenset({LATIN})
# Signs that only stand for Latin or Greek ones, among them the italic letters of formulas.
_LATIN = frozenset({"FULLWIDTH", "MICRO", "FEMININE", "MASCULINE", "MATHEMATICAL", "MODIFIER"})

_LETTERS = re.compile(r"[^\W\d_]")
_ACRONYM = re.compile(r"[A-Z]{2,}")  # stays as it is in any script

LEAST_LETTERS = 4  # fewer are an abbreviation or a name
LEAST_SHARE = 0.3  # of the letters; names and abbreviations often stay as they are
FOREIGN_LETTERS = 2  # of a script that has no business there
LEAST_HAN = 9  # Japanese without kana is a heading or a proverb, and shorter


def scripts(language: str) -> frozenset[str]:
    """The scripts of a language."""
    return _SCRIPTS.get(language, _DEFAULT)


@lru_cache(maxsize=4096)
def script(letter: str) -> str:
    """The script of a letter, as its Unicode name begins."""
    word = unicodedata.name(letter, "").partition(" ")[0]
    return LATIN if word in _LATIN else word


def misplaced(source: str, translation: str, target: str) -> bool:
    """Whether the letters of a translation are not those of its language."""
    wanted = scripts(target)
    if wanted is _DEFAULT and translation.isascii():
        return False
    found = _counted(translation)
    if _share(found, wanted) < LEAST_SHARE and not source.isupper():
        kept = _ACRONYM.sub(lambda word: "" if word[0] in source else word[0], translation)
        found = _counted(kept)
    letters = found.total()
    if letters < LEAST_LETTERS:
        return False
    share = _share(found, wanted)
    if share < LEAST_SHARE:
        return True
    if share < 1:
        known = wanted | {LATIN} | _counted(source).keys()
        if sum(count for name, count in found.items() if name not in known) >= FOREIGN_LETTERS:
            return True
    return target == "ja" and letters >= LEAST_HAN and _KANA.isdisjoint(found)


def _counted(text: str) -> Counter[str]:
    return Counter(map(script, _LETTERS.findall(text)))


def _share(found: Counter[str], wanted: frozenset[str]) -> float:
    """How much of the letters is in these scripts."""
    right = sum(count for name, count in found.items() if name in wanted)
    return right / max(1, found.total())
