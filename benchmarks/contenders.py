"""The ways of translating a list of sentences that the benchmarks compare, behind one call."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import M2M100ForConditionalGeneration

from benchmarks.ceilings import synchronize
from benchmarks.exact import drive, generate
from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.engine import ContinuousEngine
from inference_worker.engine.continuous.placement import ComputeType
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.ctranslate.engine import open_ctranslate
from inference_worker.engine.protocol import Sentence

Lengths = Mapping[int, int]  # generated tokens by key, language and ``</s>`` included


@dataclass
class Contender:
    """A named way to translate, and its timings so far."""

    name: str
    translate: Callable[[Sequence[Sentence]], Lengths]
    device: str = "cpu"
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    lengths: Lengths = field(default_factory=dict)

    def measure(self, sentences: Sequence[Sentence]) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        lengths = self.translate(sentences)
        synchronize(torch.device(self.device).type)
        self.cpu_s.append(time.process_time() - cpu)
        self.wall_s.append(time.perf_counter() - wall)
        self.lengths = lengths

    @property
    def tokens(self) -> int:
        """Generated in one round."""
        return sum(self.lengths.values())


def by_length(sentences: Sequence[Sentence]) -> list[Sentence]:
    return sorted(sentences, key=lambda sentence: len(sentence.source))


def batches(sentences: Sequence[Sentence], size: int) -> list[Sequence[Sentence]]:
    return [sentences[start : start + size] for start in range(0, len(sentences), size)]


def transformers_static(
    model: M2M100ForConditionalGeneration, rules: Rules, width: int, *, in_order: bool
) -> Contender:
    """``generate`` on batches of ``width``, sorted by source length or as they come."""

    def translate(sentences: Sequence[Sentence]) -> Lengths:
        ordered = sentences if in_order else by_length(sentences)
        lengths = {}
        for batch in batches(ordered, width):
            for sentence, kept in zip(batch, generate(model, rules, batch), strict=True):
                lengths[sentence.key] = len(kept[0].tokens) + 2
        return lengths

    order = "as they come" if in_order else "sorted"
    kind = str(model.dtype).removeprefix("torch.")
    return Contender(f"transformers {kind}, static, {order}", translate, str(model.device))


def ctranslate(
    directory: Path,
    cache: Path,
    rules: Rules,
    width: int,
    compute_type: str,
    threads: int,
    device: str = "cpu",
) -> Contender:
    """CTranslate2 on batches of ``width`` sorted by length; it drops rows that have finished."""
    engine = open_ctranslate(
        directory,
        rules,
        cache=cache,
        batch=width,
        compute_type=compute_type,
        device=device,
        threads=threads,
    )

    def translate(sentences: Sequence[Sentence]) -> Lengths:
        lengths = {}
        for batch in batches(by_length(sentences), width):
            engine.admit(batch)
            for one in engine.step():
                lengths[one.key] = len(one.hypotheses[0].tokens) + 2
        return lengths

    return Contender(f"CTranslate2 {compute_type}, sorted, shrinking", translate, device)


@dataclass
class Continuous:
    """Our engine, and what share of its slots was occupied: over the last run, and in that run
    while sentences were still waiting to get in."""

    engine: ContinuousEngine
    saturated: float = 0.0

    def flow(self, sentences: Sequence[Sentence]) -> Lengths:
        """Slots refill as sentences end."""
        engine, outside = self.engine, list(sentences)
        engine.steps = engine.occupied_slots = 0
        lengths = {}
        while outside or engine.free < engine.slots:
            fits, outside = outside[: engine.free], outside[engine.free :]
            engine.admit(fits)
            for one in engine.step():
                lengths[one.key] = len(one.hypotheses[0].tokens) + 2
            if outside:
                self.saturated = self.utilisation()
        return lengths

    def lockstep(self, sentences: Sequence[Sentence]) -> Lengths:
        """The same engine made to finish a batch before it begins the next."""
        self.engine.steps = self.engine.occupied_slots = 0
        lengths: dict[int, int] = {}
        for batch in batches(sentences, self.engine.width):
            lengths |= self._lengths(drive(self.engine, [batch]))
        return lengths

    def utilisation(self) -> float:
        return self.engine.occupied_slots / (self.engine.steps * self.engine.width)

    @staticmethod
    def _lengths(answers: Mapping[int, tuple]) -> dict[int, int]:  # type: ignore[type-arg]
        return {key: len(kept[0].tokens) + 2 for key, kept in answers.items()}


def continuous(
    checkpoint: Checkpoint,
    rules: Rules,
    width: int,
    compute_type: ComputeType,
    device: str = "cpu",
    source_tokens: int | None = None,
) -> tuple[Contender, Continuous]:
    runner = Continuous(
        ContinuousEngine(
            checkpoint,
            rules,
            width=width,
            compute_type=compute_type,
            device=device,
            source_tokens=source_tokens,
        )
    )
    return Contender(f"continuous {compute_type}", runner.flow, device), runner
