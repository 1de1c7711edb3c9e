from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from inference_worker.engine.continuous import head
from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.head import BLOCK, VocabularyHead
from inference_worker.engine.continuous.placement import place


def make_head(
    checkpoint: Callable[[str], Checkpoint], tokens: int
) -> tuple[VocabularyHead, torch.Tensor]:
    """A head over random weights, and these weights."""
    flat = checkpoint("flat")
    weight = torch.randn(tokens, flat.architecture.width)
    changed = replace(flat, weights=flat.weights | {"lm_head.weight": weight})
    return VocabularyHead(changed, place("float32")), weight


@pytest.mark.parametrize(
    ("rows", "tokens", "count"), [(1, 100, 10), (7, 3 * BLOCK, 2), (80, 4000, 10)]
)
@pytest.mark.parametrize("part", [BLOCK, 3 * BLOCK, 8192])
def test_equals_log_softmax_and_topk(
    checkpoint: Callable[[str], Checkpoint],
    rows: int,
    tokens: int,
    count: int,
    part: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(head, "PART_TOKENS", part)
    torch.manual_seed(rows)
    vocabulary, weight = make_head(checkpoint, tokens)
    states = 0.3 * torch.randn(rows, weight.shape[1])
    wanted, places = functional.linear(states, weight).log_softmax(-1).topk(count)

    values, found = vocabulary.top(states, count)

    assert found.equal(places)
    torch.testing.assert_close(values, wanted, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("part", [BLOCK, 8192])
def test_banned_tokens_count_towards_the_normaliser(
    checkpoint: Callable[[str], Checkpoint], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "PART_TOKENS", part)
    torch.manual_seed(1)
    vocabulary, weight = make_head(checkpoint, 300)
    states = torch.randn(3, weight.shape[1])
    logits = functional.linear(states, weight)
    banned = torch.zeros(3, vocabulary.padded_vocabulary, dtype=torch.bool)
    banned.scatter_(1, logits.topk(2).indices, True)
    wanted, places = logits.log_softmax(-1).masked_fill(banned[:, :300], -torch.inf).topk(4)

    values, found = vocabulary.top(states, 4, banned)

    assert found.equal(places)
    torch.testing.assert_close(values, wanted, atol=2e-5, rtol=1e-5)
