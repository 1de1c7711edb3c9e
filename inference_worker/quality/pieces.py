"""The last way to keep what must stay as it is: a sentence is cut at its placeholders, addresses
and emoji, the words between them are translated piece by piece, and all else keeps its place.

What comes out reads less well than a sentence translated whole, and lacks nothing.
"""

from dataclasses import dataclass, replace

from inference_worker.quality import spans
from inference_worker.quality.scripts import scripts

_ENDS = ".!?。！？"
_WIDE = {".": "。", ",": "、", "?": "？", "!": "！"}
_NARROW = {wide: f"{narrow} " for narrow, wide in _WIDE.items()}
_GAPS = {f"{wide} ": wide for wide in _WIDE.values()}
_NOUNS_CAPITAL = "de"  # the one language where a capital within a sentence says nothing


@dataclass(frozen=True, slots=True)
class Pieces:
    """``frame[0] texts[0] frame[1] texts[1] … frame[-1]`` is the sentence; ``done`` are the
    translations so far, in order, with the scores of their hypotheses."""

    frame: tuple[str, ...]
    texts: tuple[str, ...]
    target: str
    done: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def next(self) -> str | None:
        """The piece to translate now; None when all are done."""
        return self.texts[len(self.done)] if len(self.done) < len(self.texts) else None

    def translated(self, text: str, score: float) -> "Pieces":
        """The same with the next piece done."""
        return replace(self, done=(*self.done, text), scores=(*self.scores, score))

    @property
    def joined(self) -> str:
        """The translation; all pieces must be done."""
        parts = [self.frame[0]]
        for at, (text, translation) in enumerate(zip(self.texts, self.done, strict=True)):
            parts += (self._fitted(text, translation, first=at == 0), self.frame[at + 1])
        return "".join(parts).strip()

    @property
    def score(self) -> float:
        return sum(self.scores) / len(self.scores)

    def _fitted(self, text: str, translation: str, *, first: bool) -> str:
        """A piece as a part of the sentence: models begin what they say with a capital, and end it
        with a full stop."""
        if text[-1] not in _ENDS:
            translation = translation.rstrip(_ENDS)
        begins = first and not any(map(str.isalnum, self.frame[0]))
        if not begins and text[0].islower() and self.target != _NOUNS_CAPITAL:
            translation = translation[:1].lower() + translation[1:]
        return translation


def cut(source: str, target: str) -> Pieces | None:
    """The pieces of a sentence, or None if it has no placeholder or address, or nothing else. Emoji
    keep their place too."""
    kept = spans.kept(source)
    frame, texts, held, at = [], [], "", 0
    for start, end in [*sorted(kept + spans.emoji(source)), (len(source), len(source))]:
        before, words, after = _apart(source[at:start])
        held += _signs(before, target)
        if words:
            frame.append(held)
            texts.append(words)
            held = _signs(after, target)
        held += source[start:end]
        at = end
    return Pieces((*frame, held), tuple(texts), target) if kept and texts else None


def _apart(text: str) -> tuple[str, str, str]:
    """What stands before the words, the words, and what stands after them."""
    if not any(map(str.isalpha, text)):
        return text, "", ""
    known = [at for at, char in enumerate(text) if char.isalnum()]
    start, end = known[0], known[-1] + 1
    return text[:start], text[start:end], text[end:]


def _signs(text: str, target: str) -> str:
    """Signs between pieces, in the width that the target language has them."""
    if any(map(str.isdigit, text)):
        return text
    wide = "IDEOGRAPHIC" in scripts(target)
    text = "".join((_WIDE if wide else _NARROW).get(sign, sign) for sign in text)
    for gap, sign in _GAPS.items():
        text = text.replace(gap, sign)
    return text
