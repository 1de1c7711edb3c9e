"""The engine over transformers' own ``generate``: static batches by padded-token budget. Slower
than an engine that refills slots, but by construction what M2M100 users get from transformers."""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    M2M100ForConditionalGeneration,
)

from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.precedence import Precedence
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence


class _Model(M2M100ForConditionalGeneration):  # type: ignore[misc]
    """The model, keeping the beam scores that ``generate`` computes but gives away only together
    with every step's logits (2 GB for 64 sentences of the 418M model)."""

    beam_scores: torch.Tensor

    def _update_finished_beams(self, *args: Any, **kwargs: Any) -> Any:
        updated = super()._update_finished_beams(*args, **kwargs)
        self.beam_scores = updated[1]
        return updated


class _Forcing(LogitsProcessor):  # type: ignore[misc]
    """Forces each row's own language token as the first one, with log-probability 0, as
    transformers' ForcedBOSTokenLogitsProcessor does with one token for the whole batch.

    It is called once per token, so it also tells the watchdog that there is progress; and for
    greedy search, where ``generate`` has no scores, it adds up those of the chosen tokens.
    """

    def __init__(
        self, languages: torch.Tensor, pad: int, pulse: Callable[[], None], scoring: bool
    ) -> None:
        self._languages = languages
        self._pad = pad
        self._pulse = pulse
        self._scoring = scoring
        self._last: torch.Tensor | None = None
        self.scores = torch.zeros(len(languages), device=languages.device)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._pulse()
        if self._scoring:
            self.chosen(input_ids[:, -1])
        if input_ids.shape[1] == 1:
            scores = torch.full_like(scores, -math.inf)
            scores[torch.arange(len(scores), device=scores.device), self._languages] = 0
        if self._scoring:
            self._last = torch.log_softmax(scores.float(), dim=-1)
        return scores

    def chosen(self, tokens: torch.Tensor) -> None:
        """Adds the log-probabilities of a step's tokens; rows that have ended count no more."""
        if self._last is not None:
            found = self._last.gather(1, tokens[:, None])[:, 0]
            self.scores += found.masked_fill(tokens == self._pad, 0.0)


class GenerateEngine:
    """Holds up to ``slots`` sentences; a step translates one batch of them to the end.

    ``batch_tokens`` bounds rows times the longest row of a batch, in source tokens. ``pulse`` is
    called for every decoded token position.
    """

    name = "generate"

    def __init__(
        self,
        folder: Path,
        rules: Rules,
        *,
        device: str,
        compute_type: str,
        batch_tokens: int,
        slots: int,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self.device = device
        self.slots = slots
        self._batch_tokens = batch_tokens
        self._pulse = pulse
        self._rules = rules
        self._model = _loaded(folder, compute_type)
        self._model.to(device).eval()
        config = self._model.config
        self._pad, self._end = int(config.pad_token_id), int(config.eos_token_id)
        self._generation = GenerationConfig(
            num_beams=rules.beams,
            max_length=rules.max_length,
            length_penalty=rules.length_penalty,
            early_stopping=rules.early_stopping if rules.beams > 1 else False,
            num_return_sequences=rules.hypotheses,
            do_sample=False,
            pad_token_id=config.pad_token_id,
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        # What the checkpoint's own file asks for is in ``rules`` already; generate would merge
        # the two and warn about each difference.
        self._model.generation_config = self._generation
        self._inside: dict[int, Sentence] = {}  # in the order of arrival
        self._precedence = Precedence()

    @property
    def free(self) -> int:
        return self.slots - len(self._inside)

    def admit(self, sentences: Sequence[Sentence]) -> None:
        if len(sentences) > self.free:
            raise ValueError(f"{len(sentences)} sentences for {self.free} free slots")
        self._inside.update((sentence.key, sentence) for sentence in sentences)

    def drop(self, keys: Collection[int]) -> None:
        for key in keys:
            self._inside.pop(key, None)

    def reset(self) -> None:
        self._inside.clear()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()

    def step(self) -> list[Finished]:
        batch = next_batch(self._alike(), self._batch_tokens)
        finished = self._translate(batch)
        self.drop([sentence.key for sentence in batch])
        return finished

    def _alike(self) -> list[Sentence]:
        """The sentence to begin with, and what may share a batch with it."""
        inside = list(self._inside.values())
        first = self._precedence.first(inside)
        ngram = self._rules.ngram(first)
        rest = (sentence for sentence in inside if sentence is not first)
        return [first, *(sentence for sentence in rest if self._rules.ngram(sentence) == ngram)]

    def _translate(self, batch: list[Sentence]) -> list[Finished]:
        width = max(len(sentence.source) for sentence in batch)
        rows = [[*s.source, *[self._pad] * (width - len(s.source))] for s in batch]
        sources = torch.tensor(rows, device=self.device)
        lengths = torch.tensor([len(s.source) for s in batch], device=self.device)
        mask = (torch.arange(width, device=self.device) < lengths[:, None]).long()
        languages = torch.tensor([s.target_language for s in batch], device=self.device)
        beams = self._rules.beams
        languages = languages.repeat_interleave(beams)
        forcing = _Forcing(languages, self._pad, self._pulse, scoring=beams == 1)
        self._generation.no_repeat_ngram_size = self._rules.ngram(batch[0])
        with torch.inference_mode():
            sequences = self._model.generate(
                input_ids=sources,
                attention_mask=mask,
                generation_config=self._generation,
                logits_processor=LogitsProcessorList([forcing]),
            )
            if beams == 1:
                forcing.chosen(sequences[:, -1])
        found = [self._tokens(row) for row in sequences.tolist()]
        if beams == 1:
            scores = [
                total / generated**self._rules.length_penalty
                for total, (_, generated) in zip(forcing.scores.tolist(), found, strict=True)
            ]
        else:
            scores = self._model.beam_scores[:, : self._rules.hypotheses].flatten().tolist()
        hypotheses = [
            Hypothesis(tokens, score) for (tokens, _), score in zip(found, scores, strict=True)
        ]
        each = self._rules.hypotheses
        return [
            Finished(sentence.key, tuple(hypotheses[at * each : (at + 1) * each]))
            for at, sentence in enumerate(batch)
        ]

    def _tokens(self, row: list[int]) -> tuple[tuple[int, ...], int]:
        """What a row of ``generate`` says between the language and the end, and how many tokens it
        generated for that, both included."""
        generated = row[1:]
        if self._end in generated:
            at = generated.index(self._end)
            return tuple(generated[1:at]), at + 1
        while generated and generated[-1] == self._pad:
            generated.pop()
        return tuple(generated[1:]), len(generated)


def _loaded(folder: Path, compute_type: str) -> _Model:
    """Raises ValueError if the weights lack some: transformers would make them up at random."""
    model: _Model
    model, found = _Model.from_pretrained(
        folder,
        dtype=getattr(torch, compute_type),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if lacking := sorted(found["missing_keys"]):
        raise ValueError(f"{len(lacking)} weights are missing, among them {lacking[0]}")
    return model


def next_batch(waiting: Sequence[Sentence], batch_tokens: int) -> list[Sentence]:
    """The first sentence and those nearest to it in length, as many as fit:
    rows times the longest row is at most ``batch_tokens``, but there is always one row."""
    first = len(waiting[0].source)
    batch: list[Sentence] = []
    width = 0
    for sentence in sorted(waiting, key=lambda s: abs(len(s.source) - first)):
        width = max(width, len(sentence.source))
        if batch and width * (len(batch) + 1) > batch_tokens:
            break
        batch.append(sentence)
    return batch
