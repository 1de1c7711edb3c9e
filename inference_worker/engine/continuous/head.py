"""The output projection and the best next tokens of each row, in one pass over the vocabulary.

A vocabulary of 128,112 makes the logits of 80 rows 41 MB. Writing them all, copying them into
log-probabilities and running a full top-k over them costs about as much as computing them does. So
the projection is cut into parts whose logits stay in the cache of a core. Of each part only two
things are kept: the sum of exponentials, and the best few tokens, which are found through the
maxima of blocks of tokens: the best tokens can only lie in the blocks with the best maxima.
"""

import torch
from torch import Tensor
from torch.nn import functional

from inference_worker.engine.continuous.checkpoint import Checkpoint
from inference_worker.engine.continuous.linear import make_linear
from inference_worker.engine.continuous.placement import Placement

BLOCK = 128  # tokens per block
PART_TOKENS = 8_192  # 64 blocks; 16 rows of logits are half a MiB
BANNED = float("-inf")


class VocabularyHead:
    """Hidden states to candidates. The vocabulary is padded to whole blocks with tokens whose
    logit is −inf."""

    def __init__(self, checkpoint: Checkpoint, placement: Placement) -> None:
        weight = checkpoint.table("lm_head")
        missing = -len(weight) % BLOCK
        bias = torch.zeros(len(weight) + missing)
        bias[len(weight) :] = BANNED
        weight = functional.pad(weight, (0, 0, 0, missing))
        self._parts = [
            make_linear(part, part_bias, placement)
            for part, part_bias in zip(
                torch.split(weight, PART_TOKENS), torch.split(bias, PART_TOKENS), strict=True
            )
        ]
        self.padded_vocabulary = len(weight)

    def top(
        self, states: Tensor, count: int, banned: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The ``count`` most probable next tokens of each row, best first.

        Takes hidden states [rows, width] and optionally which tokens are banned, bool
        [rows, padded vocabulary]; they still count towards the normaliser, as transformers bans
        after its log-softmax. Returns log-probabilities and token ids, [rows, count].
        """
        values, tokens, highest, totals = [], [], [], []
        first = 0
        operand = self._parts[0].prepare(states)  # of one compute type, so it suits every part
        for part in self._parts:
            logits = part.multiply(operand).float()
            ban = None if banned is None else banned[:, first : first + logits.shape[1]]
            best, found, high, total = reduce_part(logits, count, ban)
            values.append(best)
            tokens.append(found + first)
            highest.append(high)
            totals.append(total)
            first += logits.shape[1]
        if len(self._parts) == 1:
            return (values[0] - highest[0]).sub_(totals[0].log_()), tokens[0]
        peaks = torch.cat(highest, dim=1)
        peak = peaks.amax(dim=1, keepdim=True)
        total = (torch.cat(totals, dim=1) * (peaks - peak).exp_()).sum(dim=1, keepdim=True)
        chosen, places = torch.cat(values, dim=1).topk(count, dim=1)
        return (chosen - peak).sub_(total.log_()), torch.cat(tokens, dim=1).gather(1, places)


def reduce_part(
    logits: Tensor, count: int, banned: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is kept of the logits of one part [rows, tokens], which are overwritten: the best
    ``count`` logits and their places [rows, count]; the highest logit and the sum of exponentials
    relative to it [rows, 1]."""
    blocks = logits.view(logits.shape[0], -1, BLOCK)
    maxima = blocks.amax(dim=2)
    highest = maxima.amax(dim=1, keepdim=True)
    total = (logits - highest).exp_().sum(dim=1, keepdim=True)
    if banned is not None:
        logits.masked_fill_(banned, BANNED)
        maxima = blocks.amax(dim=2)
    chosen = maxima.topk(min(count, maxima.shape[1]), dim=1).indices
    survivors = blocks.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK)).flatten(1)
    values, places = survivors.topk(count, dim=1)
    return values, chosen.gather(1, places // BLOCK) * BLOCK + places % BLOCK, highest, total
