"""Compares the continuous engine with transformers' ``generate``, token for token, in float32.

    python -m benchmarks.exact [--cases 2000] [--seed 0] [--device cpu|cuda]

A case is one sentence under one set of rules on one model. The reference is ``generate`` on padded
batches, target languages mixed. The engine gets the sentences in another order, at a random width,
in random gulps, and some are cancelled half-way; some engines run in the fixed shapes of a GPU.
Where the two differ, ``generate`` runs once more on that sentence alone: if its own answer changes
with the batch width, the case is excused and counted, otherwise it is a failure. Exits 1 on any
failure.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList, M2M100ForConditionalGeneration

from benchmarks.workload import SMALL
from inference_worker.engine.continuous.checkpoint import load_checkpoint
from inference_worker.engine.continuous.engine import ContinuousEngine
from inference_worker.engine.continuous.graphs import Replay
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence

SCORE_TOLERANCE = 2e-4
REFERENCE_BATCH = 16
PAD, END = 1, 2


@dataclass(frozen=True)
class Shape:
    """A random model: its size, and how strongly ``</s>`` attracts, which spreads the lengths."""

    name: str
    width: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    vocabulary: int
    end_bias: float
    seed: int


SHAPES = (
    Shape("deep", 32, 4, 5, 4, 4, 509, 1.3, 1),
    Shape("flat", 96, 1, 1, 2, 6, 1_300, 2.2, 2),
    Shape("wide", 64, 2, 3, 8, 2, 4_096, 2.0, 3),
    Shape("long", 48, 2, 2, 4, 4, 777, 1.6, 4),
)

RULES = (
    Rules(beams=1, max_length=40),
    Rules(beams=1, max_length=50, no_repeat_ngram=2),
    Rules(beams=2, max_length=40, hypotheses=2),
    Rules(beams=2, max_length=30, early_stopping=False, length_penalty=0.6),
    Rules(beams=3, max_length=40, early_stopping="never", length_penalty=1.3),
    Rules(beams=5, max_length=40),
    Rules(beams=5, max_length=50, early_stopping=False, length_penalty=2.0, hypotheses=5),
    Rules(beams=5, max_length=40, early_stopping=False, length_penalty=0.0),
    Rules(beams=5, max_length=40, early_stopping="never", length_penalty=-0.5, hypotheses=3),
    Rules(beams=5, max_length=40, no_repeat_ngram=3, hypotheses=2),
    Rules(beams=5, max_length=3),
    Rules(beams=5, max_length=200),
)


def write_random_checkpoint(shape: Shape, directory: Path) -> None:
    """A checkpoint with random weights, scaled so that its outputs are neither all alike nor
    near-ties, and with an output projection of its own."""
    config = transformers.M2M100Config(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.encoder_heads,
        decoder_attention_heads=shape.decoder_heads,
        encoder_ffn_dim=2 * shape.width,
        decoder_ffn_dim=3 * shape.width,
        max_position_embeddings=256,
        scale_embedding=True,
        tie_word_embeddings=False,
    )
    torch.manual_seed(shape.seed)
    model = M2M100ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.5 * weight.shape[1] ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(std=0.1)
        for embedding in (model.model.encoder.embed_tokens, model.model.decoder.embed_tokens):
            embedding.weight.normal_(std=0.5)
        model.lm_head.weight.normal_(std=0.35)
        model.lm_head.weight[END] *= shape.end_bias
    model.save_pretrained(directory)


def load_model(
    directory: Path, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> M2M100ForConditionalGeneration:
    """transformers' model, without the decoding rules its checkpoint ships."""
    model = M2M100ForConditionalGeneration.from_pretrained(directory, dtype=dtype).eval().to(device)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=END, eos_token_id=END, pad_token_id=PAD
    )
    return model


def make_sentences(vocabulary: int, count: int, rng: random.Random) -> list[Sentence]:
    """Random sources; the last ten ids of the vocabulary stand for languages. Every fourth sentence
    asks for an n-gram length of its own."""
    sentences = []
    for key in range(count):
        length = rng.choice((1, 2, 4, 6, 8, 12, 20, 45))
        pieces = [rng.randrange(4, vocabulary - 10) for _ in range(length)]
        languages = [vocabulary - 1 - rng.randrange(10) for _ in range(2)]
        ngram = 2 + key % 3 if key % 4 == 3 else 0
        sentences.append(Sentence(key, (languages[0], *pieces, END), languages[1], ngram))
    return sentences


class ForcedLanguages(LogitsProcessor):  # type: ignore[misc]
    """``forced_bos_token_id`` per row instead of per batch."""

    def __init__(self, languages: Sequence[int], beams: int) -> None:
        self._languages = torch.tensor(languages).repeat_interleave(beams)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] > 1:
            return scores
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter_(1, self._languages[:, None].to(scores.device), 0.0)


def generate(
    model: M2M100ForConditionalGeneration, rules: Rules, sentences: Sequence[Sentence]
) -> list[tuple[Hypothesis, ...]]:
    """What transformers answers for one padded batch of sentences that may repeat the same n-grams.
    Greedy search has no scores: 0."""
    longest = max(len(sentence.source) for sentence in sentences)
    rows = [[*s.source, *[PAD] * (longest - len(s.source))] for s in sentences]
    ids = torch.tensor(rows, device=model.device)
    languages = [sentence.target_language for sentence in sentences]
    with torch.inference_mode():
        answer = model.generate(
            ids,
            attention_mask=ids.ne(PAD).long(),
            logits_processor=LogitsProcessorList([ForcedLanguages(languages, rules.beams)]),
            num_beams=rules.beams,
            num_return_sequences=rules.hypotheses,
            early_stopping=rules.early_stopping,
            length_penalty=rules.length_penalty,
            max_length=rules.max_length,
            no_repeat_ngram_size=rules.ngram(sentences[0]),
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=rules.beams > 1,
        )
    scores = answer.sequences_scores.tolist() if rules.beams > 1 else [0.0] * len(answer.sequences)
    flat = [
        Hypothesis(trimmed(sequence), score)
        for sequence, score in zip(answer.sequences.tolist(), scores, strict=True)
    ]
    each = rules.hypotheses
    return [tuple(flat[start : start + each]) for start in range(0, len(flat), each)]


def trimmed(sequence: list[int]) -> tuple[int, ...]:
    """A generated sequence without start token, language token, ``</s>`` and padding."""
    tokens = sequence[2:]
    return tuple(tokens[: tokens.index(END)]) if END in tokens else tuple(tokens)


def reference(
    model: M2M100ForConditionalGeneration, rules: Rules, sentences: Sequence[Sentence]
) -> dict[int, tuple[Hypothesis, ...]]:
    """transformers' answers by key, computed in batches of similar source lengths."""
    ordered = sorted(sentences, key=lambda sentence: (rules.ngram(sentence), len(sentence.source)))
    answers = {}
    for _, group in groupby(ordered, key=rules.ngram):
        alike = list(group)
        for start in range(0, len(alike), REFERENCE_BATCH):
            batch = alike[start : start + REFERENCE_BATCH]
            for sentence, hypotheses in zip(batch, generate(model, rules, batch), strict=True):
                answers[sentence.key] = hypotheses
    return answers


def drive(
    engine: ContinuousEngine,
    arrivals: Iterable[Sequence[Sentence]],
    cancelled: Mapping[int, Sequence[int]] | None = None,
) -> dict[int, tuple[Hypothesis, ...]]:
    """Feeds an engine gulp by gulp, one step between gulps, until it is empty; returns answers by
    key. ``cancelled`` names keys to drop after so many steps."""
    answers: dict[int, tuple[Hypothesis, ...]] = {}
    outside: list[Sentence] = []
    gulps = iter(arrivals)
    gulp: Sequence[Sentence] | None = next(gulps, None)
    steps = 0
    while gulp is not None or outside or engine.free < engine.slots:
        outside.extend(gulp or ())
        fits, outside = outside[: engine.free], outside[engine.free :]
        engine.admit(fits)
        finished: list[Finished] = engine.step() if engine.free < engine.slots else []
        answers |= {one.key: one.hypotheses for one in finished}
        steps += 1
        engine.drop((cancelled or {}).get(steps, ()))
        gulp = next(gulps, None)
    return answers


def run_again(run: Replay) -> Replay:
    """A CUDA graph on a CPU: what was captured runs again, as it was captured."""
    return run


def same(found: tuple[Hypothesis, ...], wanted: tuple[Hypothesis, ...], scored: bool) -> bool:
    """Whether the tokens are equal, and the scores as nearly as float32 sums allow."""
    return len(found) == len(wanted) and all(
        ours.tokens == theirs.tokens
        and (not scored or abs(ours.score - theirs.score) <= SCORE_TOLERANCE)
        for ours, theirs in zip(found, wanted, strict=True)
    )


def verdict(
    model: M2M100ForConditionalGeneration,
    rules: Rules,
    sentence: Sentence,
    found: tuple[Hypothesis, ...],
    batched: tuple[Hypothesis, ...],
) -> str:
    """``equal``, ``excused`` (transformers itself wavers with the batch width) or ``wrong``."""
    if same(found, batched, rules.beams > 1):
        return "equal"
    alone = generate(model, rules, [sentence])[0]
    if same(found, alone, rules.beams > 1):
        return "equal"
    return "wrong" if same(alone, batched, rules.beams > 1) else "excused"


def gulps_of(sentences: Sequence[Sentence], rng: random.Random) -> Iterator[list[Sentence]]:
    """The sentences in a random order, in random gulps."""
    left = rng.sample(sentences, len(sentences))
    while left:
        size = rng.choice((0, 1, 1, 2, 5, 30))
        yield left[:size]
        left = left[size:]


def check(
    directory: Path, rules: Rules, count: int, rng: random.Random, device: str
) -> dict[str, int]:
    """Runs ``count`` sentences of one model under one set of rules and counts the verdicts."""
    model = load_model(directory, device)
    vocabulary = json.loads((directory / "config.json").read_text("utf-8"))["vocab_size"]
    sentences = make_sentences(vocabulary, count, rng)
    wanted = reference(model, rules, sentences)
    engine = ContinuousEngine(
        load_checkpoint(directory),
        rules,
        width=rng.choice((1, 2, 3, 7, 16)),
        device=device,
        capture=rng.choice((None, run_again)) if device == "cpu" else None,
    )
    dropped = rng.sample(range(count), count // 10)
    cancelled = {rng.randrange(1, 40): [key] for key in dropped}
    found = drive(engine, gulps_of(sentences, rng), cancelled)
    tally = {"equal": 0, "excused": 0, "wrong": 0, "cancelled": len(set(wanted) - set(found))}
    if set(wanted) - set(found) - set(dropped):
        raise RuntimeError("the engine lost a sentence")
    for key, hypotheses in found.items():
        outcome = verdict(model, rules, sentences[key], hypotheses, wanted[key])
        tally[outcome] += 1
        if outcome != "equal":
            print(f"  {outcome}: {directory.name}, {rules}, {sentences[key]}")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exact", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the engine")
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    rng, started = random.Random(given.seed), time.monotonic()
    each = -(-given.cases // ((1 + len(SHAPES)) * len(RULES)))
    total = {"equal": 0, "excused": 0, "wrong": 0, "cancelled": 0}
    with tempfile.TemporaryDirectory() as room:
        for shape in SHAPES:
            write_random_checkpoint(shape, Path(room) / shape.name)
        for directory in (SMALL, *(Path(room) / shape.name for shape in SHAPES)):
            for rules in RULES:
                tally = check(directory, rules, each + each // 8, rng, given.device)
                total = {name: total[name] + tally[name] for name in total}
            print(f"{directory.name:6} {total} so far, {time.monotonic() - started:.0f} s")
    print(f"total  {total} over {sum(total.values()) - total['cancelled']} cases")
    return 1 if total["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
