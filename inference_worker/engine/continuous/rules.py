"""What counts as a translation: the decoding rules of one engine, as transformers names them."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from inference_worker.engine.protocol import Sentence

EarlyStopping = bool | Literal["never"]

BOUND_SLACK_TOKENS = 16  # what a length bound always grants on top, for very short sources


@dataclass(frozen=True)
class Rules:
    """Decoding rules; the defaults are those facebook/m2m100_418M ships.

    ``max_length`` counts decoder tokens as transformers does: the start token and the language
    token are included. ``length_bound`` caps the output at that many tokens per source token (plus
    ``BOUND_SLACK_TOKENS``), so that a repetition loop costs little; 0 switches it off, and only
    then is the output always that of transformers.
    """

    beams: int = 5
    hypotheses: int = 1
    early_stopping: EarlyStopping = True
    length_penalty: float = 1.0
    max_length: int = 200
    no_repeat_ngram: int = 0
    length_bound: float = 0.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, not {self.beams}")
        if not 1 <= self.hypotheses <= self.beams:
            raise ValueError(f"hypotheses must be between 1 and beams ({self.beams})")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f"early_stopping must be true, false or never: {self.early_stopping}")
        if self.max_length < 3:
            raise ValueError("max_length must leave room for start, language and one more token")
        if self.no_repeat_ngram < 0 or self.length_bound < 0:
            raise ValueError("no_repeat_ngram and length_bound must not be negative")

    def limit(self, source_tokens: int) -> int:
        """The ``max_length`` of one sentence."""
        if not self.length_bound:
            return self.max_length
        bound = math.ceil(self.length_bound * source_tokens) + BOUND_SLACK_TOKENS
        return min(self.max_length, bound)

    def ngram(self, sentence: Sentence) -> int:
        """How long a token sequence may not come twice in the output of a sentence; 0: any."""
        return sentence.no_repeat_ngram or self.no_repeat_ngram


def shipped_rules(checkpoint: Path, **changes: Any) -> Rules:
    """The rules in a checkpoint's ``generation_config.json``, with ``changes`` on top.

    A file or an entry that is missing means transformers' own default: greedy, not beam 5.
    """
    path = checkpoint / "generation_config.json"
    shipped = json.loads(path.read_text("utf-8")) if path.exists() else {}
    rules = Rules(
        beams=shipped.get("num_beams") or 1,
        early_stopping=shipped.get("early_stopping") or False,
        length_penalty=shipped.get("length_penalty") or 1.0,
        max_length=shipped.get("max_length") or Rules.max_length,
        no_repeat_ngram=shipped.get("no_repeat_ngram_size") or 0,
    )
    return replace(rules, **changes)
