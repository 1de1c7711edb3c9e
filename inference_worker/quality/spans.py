"""What a translation must carry over as it is: placeholders, addresses, markup, emoji."""

import re
from collections import Counter

from inference_worker import protected

_SIGNS = frozenset("@<{%$&`")
_MONEY = re.compile(r"\$\d+")
_MORE_DIGITS = re.compile(r"[.,]\d")
_PERCENT = re.compile(r"(?<=\d)%")
_PICTURE = (
    "[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u231a\u231b\u23e9-\u23fa"
    "\u2600-\u2668\u2670-\u26ff\u2700-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55]"
)
_TAIL = "[\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0030-\U000e007f]"
_KEYCAP = "[0-9#*]\ufe0f?\u20e3"
# A picture with its variation, skin tone and whatever is joined to it; a flag is two letters, or a
# black one with tags.
EMOJI = re.compile(
    f"{_PICTURE}{_TAIL}*(?:\u200d{_PICTURE}{_TAIL}*|[\U0001f1e6-\U0001f1ff])*|{_KEYCAP}"
)


def addresses(text: str) -> list[tuple[int, int]]:
    """Where URLs and e-mail addresses are."""
    return [span for span in _protected(text) if _is_address(text[slice(*span)])]


def placeholders(text: str) -> list[tuple[int, int]]:
    """Where placeholders, markup and inline code are. Sums of money are none: ``$5``, unless
    ``$1`` and ``$2`` come together."""
    found = [span for span in _protected(text) if not _is_address(text[slice(*span)])]
    sums = [span for span in found if _MONEY.fullmatch(text, *span)]
    if not sums:
        return found
    numbered = {text[slice(*span)] for span in sums if not _MORE_DIGITS.match(text, span[1])}
    if {"$1", "$2"} <= numbered:
        return found
    return [span for span in found if span not in sums]


def kept(text: str) -> list[tuple[int, int]]:
    """Where placeholders and addresses are, in order."""
    return sorted(placeholders(text) + addresses(text))


def without(text: str) -> str:
    """The text with a space for each placeholder and address: what there is to translate."""
    parts, at = [], 0
    for start, end in _protected(text):
        parts.append(text[at:start])
        at = end
    return " ".join([*parts, text[at:]])


def emoji(text: str) -> list[tuple[int, int]]:
    """Where emoji are, other than in placeholders and addresses, which are told whole."""
    if text.isascii():
        return []
    found = [match.span() for match in EMOJI.finditer(text)]
    whole = _protected(text) if found else []
    return [
        (start, end)
        for start, end in found
        if not any(first < end and start < last for first, last in whole)
    ]


def missing(source: str, spans: list[tuple[int, int]], translation: str) -> int:
    """How many of these stretches of the source the translation lacks."""
    if not spans:
        return 0
    wanted = Counter(source[slice(*span)] for span in spans)
    return sum(max(0, count - translation.count(text)) for text, count in wanted.items())


def repeated(source: str, spans: list[tuple[int, int]], translation: str) -> int:
    """How many of these stretches of the source the translation has more often than the source."""
    if not spans:
        return 0
    there = Counter(translation[slice(*span)] for span in _protected(translation))
    wanted = Counter(source[slice(*span)] for span in spans)
    return sum(max(0, there[text] - count) for text, count in wanted.items())


def _protected(text: str) -> list[tuple[int, int]]:
    if _SIGNS.isdisjoint(text) and "http" not in text and "www." not in text:
        return []
    # "100% sure" is no placeholder: a percentage is followed by a word.
    percents = {match.start() for match in _PERCENT.finditer(text)}
    return [span for span in protected.spans(text) if span[0] not in percents]


def _is_address(span: str) -> bool:
    return ("@" in span[1:] and span[0] not in "<{%$`") or span.startswith(("http", "www."))
