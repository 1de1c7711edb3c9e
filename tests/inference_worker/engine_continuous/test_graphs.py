"""What a GPU does with steps, driven on a CPU: capture, replay and late answers."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.exact import drive, make_sentences, run_again
from inference_worker.engine.continuous.answers import Answers
from inference_worker.engine.continuous.attention import Padded, Ragged
from inference_worker.engine.continuous.graphs import Graphs, Replay
from inference_worker.engine.continuous.plans import Buckets
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.slots import Slot
from inference_worker.engine.protocol import Sentence

CPU = torch.device("cpu")
RULES = Rules(beams=2, max_length=40)


def slot(index: int, ngram: int = 0) -> Slot:
    return Slot(index, Sentence(index, (5, 2), 9, ngram), 2, 40, cells=2)


def test_a_shape_is_captured_once_and_replayed_from_then_on() -> None:
    buckets, captured, advanced = Buckets(2, 80, 40, RULES), [], []

    def capture(run: Callable[[], Tensor]) -> Replay:
        captured.append(run)
        return lambda: torch.tensor(len(captured))

    graphs = Graphs()
    assert graphs.replay(buckets.plan([slot(0)])) is None
    graphs.capture(lambda plan: advanced.append(plan.shape), buckets.all(), capture)  # type: ignore[arg-type, func-returns-value]

    assert advanced == [plan.shape for plan in buckets.all()]  # each ran once before its capture
    assert len(captured) == len(advanced)
    assert graphs.replay(buckets.plan([slot(0)])) is not None
    assert len(advanced) == len(captured)


def test_forbidden_ngrams_are_never_replayed() -> None:
    buckets, graphs = Buckets(2, 80, 40, RULES), Graphs()
    graphs.capture(lambda plan: torch.zeros(1), buckets.all(), run_again)
    assert graphs.replay(buckets.plan([slot(0)])) is not None
    assert graphs.replay(buckets.plan([slot(0, ngram=3)])) is None


def test_late_answers_come_with_the_next_step_and_survive_it() -> None:
    buckets, answers = Buckets(2, 80, 40, RULES), Answers(late=True, device=CPU)
    first, second = slot(0), slot(1)
    buffer = torch.tensor([[1, 0], [7, 9]])  # as a graph's, overwritten by the next replay
    assert answers.exchange(buckets.plan([first, second]), buffer) == ()
    buffer.zero_()
    assert answers.exchange(buckets.plan([second]), buffer) == [
        (first, True, 7),
        (second, False, 9),
    ]


def test_a_slot_dropped_and_filled_again_does_not_get_its_predecessors_answer(
    make_engine: Callable, checkpoint: Callable
) -> None:
    vocabulary = checkpoint("small").architecture.vocabulary
    first, second = make_sentences(vocabulary, 2, random.Random(1))
    rules = Rules(beams=2, max_length=30)
    wanted = drive(make_engine("small", rules, 1), [[second]])
    engine = make_engine("small", rules, 1, capture=run_again)
    for steps in range(1, 12):
        engine.admit([first])
        for _ in range(steps):
            engine.step()
        engine.drop([first.key])
        found = drive(engine, [[second]])
        assert found[second.key][0].tokens == wanted[second.key][0].tokens


@pytest.mark.parametrize("lengths", [[7], [3, 1, 12, 12, 5]])
def test_padded_attention_equals_ragged(lengths: list[int]) -> None:
    torch.manual_seed(0)
    joined = torch.randn(sum(lengths), 3 * 32)
    ragged, padded = Ragged(lengths, 4, CPU)(joined), Padded(lengths, 4, CPU)(joined)
    torch.testing.assert_close(padded, ragged)
