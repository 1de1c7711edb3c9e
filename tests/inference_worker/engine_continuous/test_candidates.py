import pytest
import torch

from inference_worker.engine.continuous import candidates
from inference_worker.engine.continuous.candidates import BLOCK, top_candidates


@pytest.mark.parametrize(("rows", "blocks", "count"), [(1, 1, 10), (7, 3, 2), (80, 64, 10)])
@pytest.mark.parametrize("chunk", [1, 4096, 1 << 20])
def test_equals_log_softmax_and_topk(
    rows: int, blocks: int, count: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "CHUNK_LOGITS", chunk)
    torch.manual_seed(rows)
    logits = 5 * torch.randn(rows, blocks * BLOCK)
    logits[:, -3:] = float("-inf")  # padding of the vocabulary
    wanted, places = logits.log_softmax(-1).topk(count)

    values, tokens = top_candidates(logits.clone(), count)

    assert tokens.equal(places)
    torch.testing.assert_close(values, wanted)


def test_banned_tokens_count_towards_the_normaliser() -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 2 * BLOCK)
    banned = torch.zeros_like(logits, dtype=torch.bool)
    banned.scatter_(1, logits.topk(2).indices, True)
    wanted, places = logits.log_softmax(-1).masked_fill(banned, float("-inf")).topk(4)

    values, tokens = top_candidates(logits.clone(), 4, banned)

    assert tokens.equal(places)
    torch.testing.assert_close(values, wanted)
