"""The CTranslate2 engine: one ``step`` is one batch of similar lengths, from start to end.

CTranslate2 drops finished rows while it decodes, but takes no new ones: a batch lasts as long as
its longest member. So a step takes the sentence that has waited longest (or the longest of the
urgent ones) and fills the batch with those whose source lengths are nearest to its own, among those
that repeat as freely.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import ctranslate2

from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.ctranslate.cache import cached_model
from inference_worker.engine.ctranslate.model import build
from inference_worker.engine.precedence import Precedence
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence

AHEAD_BATCHES = 2  # sentences held, in batches: the more there are, the better lengths match

# How weights are stored for each compute type; CTranslate2 converts on loading where it must.
STORED = {"float32": None, "bfloat16": "float16", "float16": "float16", "int8": "int8"}


class CTranslateEngine:
    """The Engine protocol over ``ctranslate2.Translator``.

    Its beam search ends when as many hypotheses have ended as there are beams, which is what
    transformers calls ``early_stopping``: rules that ask for another way are refused. Beam results
    and scores equal those of transformers; greedy scores count the length differently.
    """

    name = "ctranslate2"

    def __init__(
        self,
        model: Path,
        rules: Rules,
        *,
        batch: int,
        compute_type: str,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        if rules.beams > 1 and rules.early_stopping is not True:
            raise ValueError("CTranslate2 always stops early; early_stopping must be true")
        self.device = device
        self.rules = rules
        self.slots = batch * AHEAD_BATCHES
        self._batch = batch
        self._waiting: list[Sentence] = []
        self._precedence = Precedence()
        self._translator = ctranslate2.Translator(
            str(model),
            device=device,
            compute_type=compute_type,
            inter_threads=1,
            intra_threads=threads,
        )

    @property
    def free(self) -> int:
        return self.slots - len(self._waiting)

    def admit(self, sentences: Sequence[Sentence]) -> None:
        self._waiting.extend(sentences)

    def step(self) -> list[Finished]:
        batch = self._next_batch()
        taken = {sentence.key for sentence in batch}
        answers = self._translate(batch)
        self._waiting = [one for one in self._waiting if one.key not in taken]
        return [
            Finished(sentence.key, hypotheses)
            for sentence, hypotheses in zip(batch, answers, strict=True)
        ]

    def _next_batch(self) -> list[Sentence]:
        first = self._precedence.first(self._waiting)
        wanted, ngram = len(first.source), self.rules.ngram(first)
        alike = [sentence for sentence in self._waiting if self.rules.ngram(sentence) == ngram]
        nearest = sorted(alike, key=lambda sentence: abs(len(sentence.source) - wanted))
        return nearest[: self._batch]

    def _translate(self, batch: Sequence[Sentence]) -> list[tuple[Hypothesis, ...]]:
        rules = self.rules
        limit = max(rules.limit(len(sentence.source)) for sentence in batch)
        results = self._translator.translate_batch(
            [[str(token) for token in sentence.source] for sentence in batch],
            target_prefix=[[str(sentence.target_language)] for sentence in batch],
            max_batch_size=0,
            beam_size=rules.beams,
            num_hypotheses=rules.hypotheses,
            length_penalty=rules.length_penalty,
            no_repeat_ngram_size=rules.ngram(batch[0]),
            max_input_length=0,
            max_decoding_length=limit - 1,  # the start token is not counted
            return_scores=True,
        )
        return [
            tuple(
                Hypothesis(tuple(int(token) for token in tokens[1:]), score)  # [0]: the language
                for tokens, score in zip(result.hypotheses, result.scores, strict=True)
            )
            for result in results
        ]

    def drop(self, keys: Collection[int]) -> None:
        self._waiting = [sentence for sentence in self._waiting if sentence.key not in keys]

    def reset(self) -> None:
        self._waiting.clear()


def open_ctranslate(
    checkpoint: Path,
    rules: Rules,
    *,
    cache: Path,
    batch: int,
    compute_type: str,
    device: str = "cpu",
    threads: int = 1,
) -> CTranslateEngine:
    """The engine for a checkpoint directory, whose model is built into ``cache`` first if need be.

    Raises UnsupportedCheckpoint or UnreadableWeights.
    """
    model = cached_model(checkpoint, cache, STORED[compute_type], build)
    return CTranslateEngine(
        model, rules, batch=batch, compute_type=compute_type, device=device, threads=threads
    )
