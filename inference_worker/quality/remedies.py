"""What to change about a sentence whose translation failed a check, before it is tried once more,
and how to undo the change in the new translation.

Capitals become small letters. Emoji, and markup at either end, stay outside. Placeholders and
addresses give way to a short word that models copy, lost numbers to a short number. Whatever loops
may not repeat any three tokens.
"""

import re
from dataclasses import dataclass

from broker.warnings import Code
from inference_worker import protected
from inference_worker.quality import numbers, spans
from inference_worker.quality.checks import Findings
from inference_worker.quality.scripts import scripts

NGRAM = 3  # tokens; the least that leaves a language its fixed phrases

# Of 33 names, letters, signs and abbreviations tried on the bundled model in 20 sentences and six
# directions, these came back best: CD in 82 %, a number of two digits in 69 %, XX in 44 %.
NAMES = ("CD", "XX")
NUMBERS = ("23", "47", "58")

_CAPITAL_LETTERS = 6
_CAPITAL_SHARE = 0.8
_LOOPS: frozenset[Code] = frozenset(("repetition", "truncated", "length"))
_WORD = re.compile(r"([^\W\d_]+|\d+)")
_ENGLISH_I = re.compile(r"\bi\b")
_TAGS = r"(?:<[^<>]*>)"
# The look-behinds keep the search linear: within a run of spaces, it need begin but once.
_LEADING_TAGS = re.compile(rf"(?:{_TAGS}\s*)+")
_TRAILING_TAGS = re.compile(rf"(?<!\s)(?:\s*{_TAGS})+$")
_LEADING_EMOJI = re.compile(rf"(?:(?:{spans.EMOJI.pattern})\s*)+")
_TRAILING_EMOJI = re.compile(rf"(?<!\s)(?:\s*(?:{spans.EMOJI.pattern}))+$")
_GAP_EMOJI = re.compile(rf"(?<!\s)\s*(?:{spans.EMOJI.pattern})")
_CASED = frozenset(("LATIN", "GREEK", "CYRILLIC", "ARMENIAN"))


@dataclass(frozen=True, slots=True)
class Mask:
    """A stretch of the source and the word that stands for it."""

    word: str
    text: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """The word where it is no part of a longer one; but kana may touch it."""
        around = r"\d" if self.word.isdigit() else "A-Za-z"
        return re.compile(rf"(?<![{around}]){self.word}(?![{around}])")


@dataclass(frozen=True, slots=True)
class Remedy:
    """A sentence as it is tried once more: what the model reads, and the way back."""

    text: str
    ngram: int = 0  # so many tokens may not come twice in this order; 0: as the engine's rules
    respelled: bool = False  # what the model does not know is spelled in pieces that it knows
    before: str = ""
    after: str = ""
    masks: tuple[Mask, ...] = ()
    capitals: bool = False

    def restore(self, translation: str) -> str | None:
        """The translation with what was taken out; None if there is no place for it."""
        if self.capitals:
            translation = translation.upper()
        for mask in self.masks:
            parts = mask.pattern.split(translation)
            if len(parts) != 2:
                return None
            translation = mask.text.join(parts)
        return f"{self.before}{translation}{self.after}"


def remedy(
    source: str, translation: str, findings: Findings, languages: tuple[str, str]
) -> Remedy | None:
    """What to try for a translation with these findings; None if there is nothing to change."""
    origin, target = languages
    found = findings.keys()
    shouted = shouts(source, origin)
    if not found and not shouted:
        return None
    before, text, after = _inside(source, findings)
    text, masks = _masked(text, translation, findings, target)
    if not any(map(str.isalpha, text)):
        return None
    if shouted:
        text = _lowered(text, [mask.word for mask in masks], origin)
    ngram = NGRAM if found & _LOOPS else 0
    if text == source and not ngram and "unknown" not in found:
        return None
    capitals = shouted and not _CASED.isdisjoint(scripts(target))
    return Remedy(text, ngram, "unknown" in found, before, after, masks, capitals)


def shouts(source: str, origin: str) -> bool:
    """Whether a sentence is written in capitals, which are rare in what models are trained on."""
    if _CASED.isdisjoint(scripts(origin)) or source[1:].islower():
        return False
    letters = [char for char in protected.without(source) if char.isalpha()]
    capitals = sum(map(str.isupper, letters))
    return capitals >= max(_CAPITAL_LETTERS, _CAPITAL_SHARE * len(letters)) and " " in source


def _lowered(text: str, kept: list[str], origin: str) -> str:
    """A shouted sentence with a capital only where sentences begin, and those words as they are."""
    words = [word if word in kept else word.lower() for word in re.split(_WORD, text)]
    lowered = "".join(words)
    if origin == "en":
        lowered = _ENGLISH_I.sub("I", lowered)
    return lowered[:1].upper() + lowered[1:]


def _inside(source: str, findings: Findings) -> tuple[str, str, str]:
    """What stands before the words of a sentence, the sentence, and what stands after it."""
    before, text, after = "", source, ""
    if "lost_placeholder" in findings:
        before, text, after = _peeled(text, _LEADING_TAGS, _TRAILING_TAGS)
    loose = len(spans.emoji(text)) == len(spans.EMOJI.findall(text))  # none in a placeholder
    if findings.keys() & {"lost_emoji", "unknown"} and loose:
        first, text, last = _peeled(text, _LEADING_EMOJI, _TRAILING_EMOJI)
        between = "".join(text[slice(*span)] for span in spans.emoji(text))
        if between:
            text = _GAP_EMOJI.sub("", text)
            last = f" {between}{last}"
        before, after = before + first, last + after
    return before, text, after


def _peeled(text: str, leading: re.Pattern[str], trailing: re.Pattern[str]) -> tuple[str, str, str]:
    start = match.end() if (match := leading.match(text)) else 0
    end = match.start() if (match := trailing.search(text, start)) else len(text)
    return text[:start], text[start:end], text[end:]


def _masked(
    text: str, translation: str, findings: Findings, target: str
) -> tuple[str, tuple[Mask, ...]]:
    taken = set(_WORD.findall(text))
    masks: list[Mask] = []
    if findings.keys() & {"lost_placeholder", "lost_address"}:
        found = spans.kept(text)
        text = _covered(text, found, [word for word in NAMES if word not in taken], masks)
    if "lost_number" in findings:
        found = [figure.span for figure in numbers.lost(text, translation, target)]
        text = _covered(text, found, [word for word in NUMBERS if word not in taken], masks)
    return text, tuple(masks)


def _covered(text: str, found: list[tuple[int, int]], words: list[str], masks: list[Mask]) -> str:
    """The text with as many of these stretches as there are words replaced by them."""
    parts, at = [], 0
    for (start, end), word in zip(found, words, strict=False):
        parts += [text[at:start], word]
        masks.append(Mask(word, text[start:end]))
        at = end
    return "".join([*parts, text[at:]])
