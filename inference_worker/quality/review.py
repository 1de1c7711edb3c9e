"""From a sentence's hypotheses to the one that is kept: checks it, says whether and how to try the
sentence once more, and which of two translations is the better one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from broker.warnings import Code
from inference_worker.engine.protocol import Hypothesis
from inference_worker.normalisation import one_line
from inference_worker.quality import spans
from inference_worker.quality.checks import Findings, examine
from inference_worker.quality.pieces import Pieces, cut
from inference_worker.quality.remedies import NAMES, NGRAM, Remedy, remedy
from inference_worker.tokens import Vocabulary

SelfCheck = Literal["off", "report", "retry"]

# What spoils a translation. The other findings are things it lacks and may be right without.
SPOILED: frozenset[Code] = frozenset(
    ("empty", "truncated", "repetition", "length", "copied", "wrong_script", "wrong_language")
)

# What is kept for certain by translating only what is around it.
LOST: frozenset[Code] = frozenset(("lost_placeholder", "lost_address"))


@dataclass(frozen=True, slots=True)
class Case:
    """A sentence to be judged: what the model was to read, its two languages, how many of its
    pieces the model does not know; and after the first try, what came out and what is tried now:
    the whole with a remedy, or one piece after the other."""

    source: str
    languages: tuple[str, str]
    unknown: int = 0
    first: "Reading | None" = None  # the best so far, once there is a second try
    tried: Remedy | None = None
    pieces: Pieces | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """A translation and what is wrong with it. It is clean if nothing is."""

    text: str
    score: float
    findings: Findings
    mended: bool = False  # it replaced another one that had failed a check

    @property
    def clean(self) -> bool:
        """Whether no check failed: only such translations should be remembered."""
        return not self.findings

    @property
    def rank(self) -> tuple[int, int, float]:
        """Smaller is better: first by how much spoils it, then by how much it lacks, then by how
        sure the model is."""
        spoiled = len(self.findings.keys() & SPOILED)
        lacking = sum(self.findings.values()) - sum(self.findings[code] for code in SPOILED)
        return spoiled, lacking, -self.score


@dataclass(frozen=True, slots=True)
class Again:
    """One more try: the case to judge it by, what the engine is given, and what is kept without."""

    case: Case
    source: tuple[int, ...]
    ngram: int
    otherwise: Reading


class Reviewer:
    """Judges what an engine says of one model. Has no state of its own, so that threads may share
    it. ``off`` leaves only what the engine itself tells: what was cut off or unknown."""

    def __init__(
        self, vocabulary: Vocabulary, mode: SelfCheck, *, longest: int, most_tokens: int
    ) -> None:
        self._vocabulary = vocabulary
        self._longest = longest  # generated tokens of what was cut off
        self._most_tokens = most_tokens  # that a source may have
        self._mode = mode

    def review(self, case: Case, hypotheses: Sequence[Hypothesis]) -> Reading | Again:
        """The translation to keep, or how to try the sentence once more."""
        if case.pieces is not None:
            return self._next_piece(case, case.pieces, hypotheses)
        reading = self._best(case, hypotheses)
        if case.first is not None:
            kept = better(case.first, reading)
            return self._in_pieces(case, kept) or kept
        if reading is None:
            raise ValueError("a sentence without hypotheses")
        return (self._again(case, reading) if self._mode == "retry" else None) or reading

    def _best(self, case: Case, hypotheses: Sequence[Hypothesis]) -> Reading | None:
        """The best hypothesis, which is the first unless that fails a check. None if what was
        taken out of the source has no place in any of them."""
        chosen: Reading | None = None
        for hypothesis in hypotheses:
            text: str | None = one_line(self._vocabulary.decode(hypothesis.tokens))
            if case.tried and text is not None:
                text = case.tried.restore(text)
            if text is None:
                continue
            findings = self._examine(case, text)
            if len(hypothesis.tokens) >= self._longest:
                findings["truncated"] = 1
            if case.unknown:
                findings["unknown"] = case.unknown
            reading = Reading(text, hypothesis.score, findings, mended=chosen is not None)
            if chosen is None or reading.rank < chosen.rank:
                chosen = reading
            if self._mode != "retry" or not findings.keys() - {"unknown"}:
                break  # the next ones are less likely, and cannot be better
        return chosen

    def _examine(self, case: Case, text: str) -> Findings:
        return Counter() if self._mode == "off" else examine(case.source, text, case.languages)

    def _again(self, case: Case, reading: Reading) -> Again | None:
        lost = reading.findings.keys() & LOST  # looked at first: nearly every sentence has none
        too_many = lost and len(spans.kept(case.source)) > len(NAMES)  # for words to stand for
        if too_many and (cut_up := self._in_pieces(case, reading)):
            return cut_up
        tried = remedy(case.source, reading.text, reading.findings, case.languages)
        if tried is None:
            return None
        encode = self._vocabulary.respelled if tried.respelled else self._vocabulary.encode
        encoded = encode(tried.text, case.languages[0])
        if len(encoded.ids) > self._most_tokens:
            return None
        second = replace(case, unknown=encoded.unknown, first=reading, tried=tried)
        return Again(second, encoded.ids, tried.ngram, reading)

    def _in_pieces(self, case: Case, kept: Reading) -> Again | None:
        """What is tried at last if placeholders or addresses are still lost."""
        pieces = cut(case.source, case.languages[1]) if kept.findings.keys() & LOST else None
        if pieces is None:
            return None
        return self._piece(replace(case, first=kept, tried=None, unknown=0), pieces, kept)

    def _piece(self, case: Case, pieces: Pieces, otherwise: Reading) -> Again | None:
        encoded = self._vocabulary.encode(pieces.next or "", case.languages[0])
        if len(encoded.ids) > self._most_tokens:
            return None
        case = replace(case, pieces=pieces, unknown=case.unknown + encoded.unknown)
        return Again(case, encoded.ids, NGRAM, otherwise)

    def _next_piece(
        self, case: Case, pieces: Pieces, hypotheses: Sequence[Hypothesis]
    ) -> Reading | Again:
        """Goes on to the next piece; after the last one judges the whole."""
        if case.first is None or pieces.next is None:
            raise ValueError("no piece of this sentence is being translated")
        piece = self._best(Case(pieces.next, case.languages), hypotheses)
        if piece is None or "truncated" in piece.findings:
            return case.first
        pieces = pieces.translated(piece.text, piece.score)
        if pieces.next is not None:
            return self._piece(case, pieces, case.first) or case.first
        findings = self._examine(case, pieces.joined)
        if case.unknown:
            findings["unknown"] = case.unknown
        return better(case.first, Reading(pieces.joined, pieces.score, findings))


def better(first: Reading, second: Reading | None) -> Reading:
    """The translation to keep; the first one unless the second is better."""
    if second is None or first.rank <= second.rank:
        return first
    return replace(second, mended=not first.clean)  # a sentence in capitals is tried anyway
