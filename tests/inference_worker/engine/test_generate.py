"""Tests of ``inference_worker.engine.generate`` against transformers' ``generate``, in float32."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import M2M100ForConditionalGeneration

from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.generate import GenerateEngine, next_batch
from inference_worker.engine.protocol import Finished, Sentence
from inference_worker.tokens import Vocabulary

CASES = [
    ("en", "ja", "Where is the station?"),
    ("en", "de", "I have never been to Paris, but my brother went there twice last year."),
    ("ja", "en", "彼は毎日学校へ行きます。"),
    ("de", "fr", "Ich liebe dich."),
    ("fr", "en", "Je ne sais pas ce que tu veux dire."),
    ("es", "ja", "¿Dónde está la biblioteca?"),
    ("en", "ja", "Life is like a box of chocolates."),
    ("nl", "en", "Ik weet het niet."),
    ("en", "es", "__ja__ </s> zzz qqq"),
    ("ja", "de", "駅はどこですか。"),
]

LIMIT = 60  # tokens; the model's own limit of 200 only makes repetition loops longer


@pytest.fixture(scope="module")
def reference(small: Path) -> Any:
    return M2M100ForConditionalGeneration.from_pretrained(small, dtype=torch.float32).eval()


def engine(small: Path, beams: int = 5, **options: Any) -> GenerateEngine:
    values: dict[str, Any] = {
        "device": "cpu",
        "compute_type": "float32",
        "rules": Rules(beams, max_length=LIMIT),
        "batch_tokens": 1_024,
        "slots": 64,
    }
    return GenerateEngine(small, **(values | options))


@pytest.fixture(scope="module")
def beam5(small: Path) -> GenerateEngine:
    return engine(small)


def sentences(vocabulary: Vocabulary, cases: Sequence[tuple[str, str, str]]) -> list[Sentence]:
    return [
        Sentence(key, vocabulary.encode(text, source).ids, vocabulary.language(target))
        for key, (source, target, text) in enumerate(cases)
    ]


def run(subject: GenerateEngine, batch: Sequence[Sentence]) -> dict[int, Finished]:
    subject.admit(batch)
    finished: dict[int, Finished] = {}
    while subject.free < subject.slots:
        finished |= {f.key: f for f in subject.step()}
    return finished


def expected(reference: Any, sentence: Sentence, beams: int) -> tuple[tuple[int, ...], float]:
    """What transformers itself generates for one sentence, and its score."""
    with torch.inference_mode():
        answer = reference.generate(
            input_ids=torch.tensor([sentence.source]),
            forced_bos_token_id=sentence.target_language,
            num_beams=beams,
            early_stopping=beams > 1,
            max_length=LIMIT,
            no_repeat_ngram_size=sentence.no_repeat_ngram,
            return_dict_in_generate=True,
            output_scores=True,
        )
    row = answer.sequences[0].tolist()
    assert row[:2] == [2, sentence.target_language]
    if beams > 1:
        score = float(answer.sequences_scores[0])
    else:
        transitions = reference.compute_transition_scores(
            answer.sequences, answer.scores, normalize_logits=True
        )
        score = float(transitions.sum()) / (len(row) - 1)
    return tuple(row[2:-1]) if row[-1] == 2 else tuple(row[2:]), score


@pytest.mark.parametrize("beams", [5, 1, 2])
def test_output_is_that_of_transformers(
    small: Path, reference: Any, vocabulary: Vocabulary, beams: int
) -> None:
    batch = sentences(vocabulary, CASES)
    finished = run(engine(small, beams), batch)
    for sentence in batch:
        (best,) = finished[sentence.key].hypotheses
        tokens, score = expected(reference, sentence, beams)
        assert best.tokens == tokens
        assert best.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("beams", [5, 1])
def test_a_sentence_may_forbid_repetition_for_itself(
    small: Path, reference: Any, vocabulary: Vocabulary, beams: int
) -> None:
    batch = [
        replace(sentence, no_repeat_ngram=sentence.key % 3)
        for sentence in sentences(vocabulary, CASES)
    ]
    finished = run(engine(small, beams), batch)
    for sentence in batch:
        tokens, _ = expected(reference, sentence, beams)
        assert finished[sentence.key].hypotheses[0].tokens == tokens


def test_gives_as_many_hypotheses_as_the_rules_ask_for(
    small: Path, vocabulary: Vocabulary, beam5: GenerateEngine
) -> None:
    batch = sentences(vocabulary, CASES[:3])
    best = run(beam5, batch)
    finished = run(engine(small, rules=Rules(5, max_length=LIMIT, hypotheses=3)), batch)
    for sentence in batch:
        found = finished[sentence.key].hypotheses
        scores = [one.score for one in found]
        assert len({one.tokens for one in found}) == 3
        assert scores == sorted(scores, reverse=True)
        assert found[0].tokens == best[sentence.key].hypotheses[0].tokens


def test_a_batch_of_mixed_pairs_gives_what_single_sentences_give(
    beam5: GenerateEngine, vocabulary: Vocabulary
) -> None:
    batch = sentences(vocabulary, CASES)
    together = run(beam5, batch)
    for sentence in batch:
        alone = run(beam5, [sentence])[sentence.key].hypotheses[0]
        assert alone.tokens == together[sentence.key].hypotheses[0].tokens


def test_everyday_sentences_come_out_right(beam5: GenerateEngine, vocabulary: Vocabulary) -> None:
    finished = run(beam5, sentences(vocabulary, [CASES[0], CASES[2]]))
    texts = [vocabulary.decode(finished[key].hypotheses[0].tokens) for key in (0, 1)]
    assert texts == ["駅はどこですか。", "He goes to school every day."]


def test_a_runaway_ends_at_the_length_limit(small: Path, vocabulary: Vocabulary) -> None:
    short = engine(small, rules=Rules(5, max_length=6))
    (finished,) = run(short, sentences(vocabulary, CASES[1:2])).values()
    assert len(finished.hypotheses[0].tokens) <= 4


@pytest.mark.parametrize("compute_type", ["bfloat16", "float16"])
def test_smaller_types_run(small: Path, vocabulary: Vocabulary, compute_type: str) -> None:
    finished = run(engine(small, compute_type=compute_type), sentences(vocabulary, CASES[:1]))
    assert vocabulary.decode(finished[0].hypotheses[0].tokens).endswith("。")


def test_slots_batches_drop_and_reset(small: Path, vocabulary: Vocabulary) -> None:
    pulses: list[None] = []
    subject = engine(small, beams=1, slots=4, batch_tokens=20, pulse=lambda: pulses.append(None))
    batch = sentences(vocabulary, CASES[:5])
    with pytest.raises(ValueError, match="5 sentences for 4 free slots"):
        subject.admit(batch)
    subject.admit(batch[:4])
    assert subject.free == 0
    assert 0 in {finished.key for finished in subject.step()}
    assert pulses
    left = subject.free
    subject.drop([0, 1, 99])
    assert subject.free == left + 1
    subject.reset()
    assert subject.free == 4
    with pytest.raises(ValueError, match="no sentences"):
        subject.step()


def rows(*lengths: int) -> list[Sentence]:
    return [Sentence(key, (9,) * length, 8_046) for key, length in enumerate(lengths)]


def test_batches_hold_neighbours_in_length_of_the_oldest_sentence() -> None:
    waiting = rows(10, 50, 11, 9, 48)
    assert [s.key for s in next_batch(waiting, 40)] == [0, 2, 3]
    assert [s.key for s in next_batch(waiting[1:], 100)] == [1, 4]


def test_batches_stay_within_the_token_budget_but_are_never_empty() -> None:
    assert len(next_batch(rows(*[10] * 100), 256)) == 25
    assert len(next_batch(rows(500, 500), 256)) == 1
