"""``no_repeat_ngram``: bans tokens that would complete an n-gram the beam already holds.

As transformers counts, the sequence begins with the start token, which is ``</s>``. This is the
only part of the search that needs whole sequences on every step, so they are kept here, and only
if asked for.
"""

import torch
from torch import Tensor

from inference_worker.engine.continuous.caches import Slots
from inference_worker.engine.continuous.rules import Rules


class RepeatGuard:
    """The sequences of all beams, [slots, beams, max_length]."""

    def __init__(self, rules: Rules, width: int, device: torch.device) -> None:
        self._size = rules.no_repeat_ngram
        shape = (width, rules.beams, rules.max_length + 1)
        self._sequences = torch.zeros(shape, dtype=torch.int64, device=device)
        self._columns = torch.arange(rules.max_length + 1, device=device)

    def place(self, slot: int, start: int, language: int) -> None:
        self._sequences[slot, :, 0], self._sequences[slot, :, 1] = start, language

    def banned(self, slots: Slots, lengths: Tensor, width: int) -> Tensor:
        """Which tokens each row must not choose, bool [groups × beams, ``width``]."""
        sequences = self._sequences[slots]
        rows, lengths = sequences.flatten(0, 1), lengths.repeat_interleave(sequences.shape[1])
        windows = rows.unfold(1, self._size, 1)
        suffix = (lengths[:, None] - self._size + 1 + self._columns[: self._size - 1]).clamp_(min=0)
        same = windows[..., :-1].eq(rows.gather(1, suffix)[:, None]).all(dim=-1)
        same &= self._columns[: windows.shape[1]] <= (lengths - self._size)[:, None]
        spare = torch.where(same, windows[..., -1], width)  # a column beyond the vocabulary
        banned = torch.zeros((len(rows), width + 1), dtype=torch.bool, device=rows.device)
        return banned.scatter_(1, spare, True)[:, :width]

    def advance(self, slots: Slots, parents: Tensor, tokens: Tensor, lengths: Tensor) -> None:
        """Beams go on from ``parents`` with ``tokens`` [groups, beams]."""
        sequences = self._sequences[slots].take_along_dim(parents[:, :, None], dim=1)
        places = lengths[:, None, None].expand(-1, sequences.shape[1], 1)
        self._sequences[slots] = sequences.scatter_(2, places, tokens[:, :, None])
