"""``no_repeat_ngram``: bans tokens that would complete an n-gram the beam already holds.

As transformers counts, the sequence begins with the start token, which is ``</s>``. Each slot has
a length of its own, since a sentence may ask for another than the engine's rules. This is the only
part of the search that needs whole sequences on every step, so they are kept here, and only while
a sentence that asks for them is inside.
"""

import torch
from torch import Tensor

from inference_worker.engine.continuous.caches import Slots
from inference_worker.engine.continuous.rules import Rules


class RepeatGuard:
    """The sequences of all beams, [slots, beams, max_length + 1], and n by slot, 0 for none."""

    def __init__(self, rules: Rules, width: int, device: torch.device) -> None:
        shape = (width, rules.beams, rules.max_length + 1)
        self._sequences = torch.zeros(shape, dtype=torch.int64, device=device)
        self._sizes = torch.zeros(width, dtype=torch.int64, device=device)
        self._columns = torch.arange(rules.max_length + 1, device=device)

    def place(self, slots: Tensor, start: int, languages: Tensor, sizes: Tensor) -> None:
        self._sequences[slots, :, 0] = start
        self._sequences[slots, :, 1] = languages[:, None]
        self._sizes[slots] = sizes

    def banned(self, slots: Slots, lengths: Tensor, longest: int, width: int) -> Tensor:
        """Which tokens each row must not choose, bool [groups × beams, ``width``].

        ``longest`` is the largest n of these slots. A token is banned if the n − 1 before it are
        the n − 1 at the end of the row.
        """
        sequences = self._sequences[slots]
        rows, beams = sequences.flatten(0, 1), sequences.shape[1]
        lengths = lengths.repeat_interleave(beams)[:, None]
        sizes = self._sizes[slots].repeat_interleave(beams)[:, None]
        same = (self._columns >= sizes - 1) & (self._columns < lengths) & (sizes > 0)
        for back in range(1, longest):
            end = rows.gather(1, (lengths - back).clamp_(min=0))
            same &= rows.roll(back, dims=1).eq(end) | (back >= sizes)
        spare = torch.where(same, rows, width)  # a column beyond the vocabulary
        banned = torch.zeros((len(rows), width + 1), dtype=torch.bool, device=rows.device)
        return banned.scatter_(1, spare, True)[:, :width]

    def advance(self, slots: Slots, parents: Tensor, tokens: Tensor, lengths: Tensor) -> None:
        """Beams go on from ``parents`` with ``tokens`` [groups, beams]."""
        sequences = self._sequences[slots].take_along_dim(parents[:, :, None], dim=1)
        places = lengths[:, None, None].expand(-1, sequences.shape[1], 1)
        self._sequences[slots] = sequences.scatter_(2, places, tokens[:, :, None])
