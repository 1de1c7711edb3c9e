"""What can be told about a translation from the two texts alone, without knowing either language.

Each check is a threshold on something countable, and set so that translations by people pass:
``python -m benchmarks.quality references`` counts how many do not.
"""

import re
from collections import Counter
from collections.abc import Iterator

from broker.warnings import Code
from inference_worker.quality import loops, numbers, scripts, spans, words

LEAST_COPIED_WORDS = 4  # names, titles and "Oui, oui!" stay as they are
COPIED_SHARE = 0.8  # of the source's words
WIDE_CHARS = 2.2  # characters of alphabetic text that a Chinese character or a kana stands for
MOST_LENGTHS = 3.0  # of the source's
LEAST_LENGTHS = 0.3
SLACK_CHARS = 10  # what short sentences may differ by: "Hi!", "お久しぶりですね。"

_WIDE = re.compile("[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff01-\uff60]")

Findings = Counter[Code]


def examine(source: str, translation: str, languages: tuple[str, str]) -> Findings:
    """What is wrong with a translation of a sentence, and how often. ``languages`` are the source's
    and the target's."""
    found = dict(_wrong(source, translation, *languages))
    if "empty" not in found:
        found |= _lacking(source, translation, languages[1])
    return Counter(found)


def _wrong(source: str, translation: str, origin: str, target: str) -> Iterator[tuple[Code, int]]:
    if not any(map(str.isalnum, translation)):
        yield "empty", 1
        return
    if loops.repeats(source, translation):
        yield "repetition", 1
    if not _fits(source, translation):
        yield "length", 1
    # Placeholders and addresses are no words, and in no script.
    source, translation = spans.without(source), spans.without(translation)
    found = words.words(translation)
    if origin != target and _copied(source, found):
        yield "copied", 1
    elif scripts.misplaced(source, translation, target):
        yield "wrong_script", 1
    elif words.foreign(found, target):
        yield "wrong_language", 1


def _lacking(source: str, translation: str, target: str) -> dict[Code, int]:
    placeholders = spans.placeholders(source)
    lost: dict[Code, int] = {
        "lost_placeholder": spans.missing(source, placeholders, translation)
        + spans.repeated(source, placeholders, translation),
        "lost_address": spans.missing(source, spans.addresses(source), translation),
        "lost_emoji": spans.missing(source, spans.emoji(source), translation),
        "lost_number": len(numbers.lost(source, translation, target)),
    }
    return {code: count for code, count in lost.items() if count}


def _copied(source: str, found: list[str]) -> bool:
    """Whether the translation is the source, or nearly all of its words in a row."""
    wanted = words.words(source)
    if len(wanted) < LEAST_COPIED_WORDS:
        return False
    if found == wanted:
        return True
    distinct = set(wanted)
    if len(distinct.intersection(found)) < COPIED_SHARE / 2 * len(distinct):
        return False
    kept = Counter(wanted) & Counter(found)
    return kept.total() >= COPIED_SHARE * len(wanted)


def _fits(source: str, translation: str) -> bool:
    here, there = _length(source), _length(translation)
    return LEAST_LENGTHS * here - SLACK_CHARS <= there <= MOST_LENGTHS * here + SLACK_CHARS


def _length(text: str) -> float:
    """Characters, as many as the same would take in an alphabet."""
    if text.isascii():
        return len(text)
    return len(text) + (WIDE_CHARS - 1) * len(_WIDE.findall(text))
