"""Self-attention of a ragged micro-batch, [tokens, 3 × width] → [tokens, width]: sentences that lie
one after the other, of which each sees its own tokens alone."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional


class Ragged:
    """One call per sentence over exactly its tokens: for CPUs, where calls are cheap and arithmetic
    is not."""

    def __init__(self, lengths: Sequence[int], heads: int, device: torch.device) -> None:
        self._bounds, self._heads = [0, *accumulate(lengths)], heads

    def __call__(self, joined: Tensor) -> Tensor:
        total, triple = joined.shape
        heads, width = self._heads, triple // 3
        parts = joined.view(total, 3, heads, width // heads).permute(1, 2, 0, 3)
        attended = []
        for start, stop in pairwise(self._bounds):
            queries, keys, values = parts[:, None, :, start:stop].unbind()
            part = functional.scaled_dot_product_attention(queries, keys, values)
            attended.append(part[0].transpose(0, 1).reshape(-1, width))
        return torch.cat(attended)


class Padded:
    """One call for all sentences, padded to the longest: for GPUs, where it is the other way
    round. Where to find and to put the rows is worked out once for all layers."""

    def __init__(self, lengths: Sequence[int], heads: int, device: torch.device) -> None:
        longest, total = max(lengths), sum(lengths)
        starts = [0, *accumulate(lengths)][:-1]
        found = [[min(start + place, total - 1) for place in range(longest)] for start in starts]
        put = [
            row * longest + place for row, length in enumerate(lengths) for place in range(length)
        ]
        self._heads, self._shape = heads, (len(lengths), longest)
        self._found = torch.tensor(found, device=device).flatten()
        self._put = torch.tensor(put, device=device)
        ends = torch.tensor(lengths, device=device)[:, None]
        self._seen = (torch.arange(longest, device=device) < ends)[:, None, None]

    def __call__(self, joined: Tensor) -> Tensor:
        width = joined.shape[1] // 3
        padded = joined[self._found].view(*self._shape, 3, self._heads, width // self._heads)
        queries, keys, values = padded.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._seen
        )
        return attended.transpose(1, 2).reshape(-1, width)[self._put]
