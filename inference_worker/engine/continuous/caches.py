"""The key-value caches of the slots: allocated once, never moved, and what they cost.

Self-attention keys live in *cells*. The beams of a group share the group's cells, and a mask says
which cells are ancestors of which beam: when beams change parents only the small mask is
rearranged, never the keys. A cell without a living descendant is taken again. In the worst case a
group needs ``beams × max_length`` cells; beams that share their past need a fraction, so the high
cells of a slot are seldom touched and their pages seldom become resident.

Cross-attention keys belong to the source sentence and are stored once per group.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from inference_worker.engine.continuous.architecture import Architecture
from inference_worker.engine.continuous.placement import Placement
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.slots import Slot

Slots = (
    Tensor | slice
)  # which slots of [slots, …] tensors: indices, or a range where they lie together

MASKED = float("-inf")
FLOAT_BYTES, INDEX_BYTES = 4, 8


class Caches:
    """Self- and cross-attention keys and values for ``width`` slots, and their masks.

    ``own[layer]``: [slots, 2, heads, cells, head width]; ``cross``: [slots, layers, 2, heads,
    sources, head width]. ``ancestry``: [slots, beams, cells] and ``source_mask``: [slots, 1, 1,
    sources] are added to attention scores, 0 or −inf. All of these are of the placement's format
    for keys. ``next_cells``: [slots, beams], where each beam's next token goes.
    """

    def __init__(
        self,
        architecture: Architecture,
        rules: Rules,
        width: int,
        source_tokens: int,
        placement: Placement,
    ) -> None:
        device, dtype = placement.device, placement.keys
        heads = architecture.decoder_heads
        self.beams, self.dtype = rules.beams, dtype
        self.cells = cells_per_slot(rules)
        self._head_width = architecture.width // heads
        layers = range(architecture.decoder_layers)

        def room(*shape: int) -> Tensor:  # zeros: even a masked value must be a number
            return torch.zeros((width, *shape, self._head_width), dtype=dtype, device=device)

        def mask(*shape: int) -> Tensor:
            return torch.full(shape, MASKED, dtype=dtype, device=device)

        self.own = [room(2, heads, self.cells) for _ in layers]
        self.cross = room(len(layers), 2, heads, source_tokens)
        self.ancestry = mask(width, rules.beams, self.cells)
        self.source_mask = mask(width, 1, 1, source_tokens)
        self.next_cells = torch.zeros((width, rules.beams), dtype=torch.int64, device=device)
        self._beam_numbers = torch.arange(rules.beams, device=device)
        self._source_numbers = torch.arange(source_tokens, device=device)
        self._first_ancestry = mask(rules.beams, self.cells)
        self._first_ancestry[:, 0] = 0
        self._first_ancestry[self._beam_numbers, self._beam_numbers] = 0
        # Rows of ``own[layer]`` seen as [-1, head width]: where slot, key or value, head begin.
        parts = torch.arange(2 * heads, device=device) * self.cells
        slots = torch.arange(width, device=device) * (2 * heads * self.cells)
        self._begin = slots[:, None] + parts  # [slots, 2 × heads]
        self._ranks = torch.arange(1, rules.beams + 1, device=device).expand(width, -1).contiguous()
        self._rows = torch.arange(width * rules.beams, device=device).view(width, rules.beams)

    def place(self, slots: Sequence[Slot], keys_values: Sequence[Tensor]) -> None:
        """Gives slots new sentences: their cross keys [layers, 2, heads, sources, head width].

        The first cells of a slot are one per beam, and every beam sees the first beam's cell and
        its own: so the start token on beam 0 is the past of the language token on beam 1.
        """
        for slot, keys in zip(slots, keys_values, strict=True):
            self.cross[slot.index, ..., : slot.sources, :] = keys
            slot.cells = self.beams
        index, sources = self.next_cells.new_tensor(
            [[slot.index for slot in slots], [slot.sources for slot in slots]]
        )
        unseen = self._source_numbers >= sources[:, None]
        masks = torch.zeros_like(unseen, dtype=self.dtype).masked_fill_(unseen, MASKED)
        self.source_mask[index] = masks[:, None, None]
        self.ancestry[index] = self._first_ancestry
        self.next_cells[index] = self._beam_numbers

    def write_index(self, slots: Slots) -> Tensor:
        """Where this step writes: rows of ``own[layer]`` seen as [-1, head width], in the order of
        the projected keys and values."""
        return (self._begin[slots][:, None, :] + self.next_cells[slots][:, :, None]).view(-1)

    def write(self, layer: int, index: Tensor, keys_values: Tensor) -> None:
        """Stores keys and values [groups × beams, 2 × width] of one layer."""
        flat = self.own[layer].view(-1, self._head_width)
        rows = keys_values.to(flat.dtype).reshape(-1, self._head_width)
        flat.index_copy_(0, index, rows)

    def branch(self, slots: Slots, parents: Tensor, used: int) -> Tensor:
        """Beams go on from ``parents`` [groups, beams]: each inherits its parent's ancestry and
        gets the group's next cell that no living beam descends from.

        ``used`` is how many cells any of the groups has touched. Returns the new cells.
        """
        reach = min(self.cells, used + self.beams)
        ancestry = self.ancestry.view(-1, self.cells)[:, :reach]
        rows = self._rows[slots]
        groups = rows.shape[0]
        inherited = ancestry.index_select(0, (rows[:, :1] + parents).view(-1))
        inherited = inherited.view(groups, self.beams, reach)
        dead = inherited.amax(dim=1).ne(0).cumsum(dim=1)
        cells = torch.searchsorted(dead, self._ranks[:groups])
        cells.clamp_(max=reach - 1)  # only groups that nobody is in can be beyond
        inherited.scatter_(2, cells[:, :, None], 0)
        ancestry.index_copy_(0, rows.view(-1), inherited.flatten(0, 1))
        self.next_cells[slots] = cells
        return cells


def cells_per_slot(rules: Rules) -> int:
    """Cells that beams which never share a token would need, and one free one per beam."""
    return rules.beams * rules.max_length


def slot_bytes(
    architecture: Architecture, rules: Rules, source_tokens: int, dtype: torch.dtype
) -> int:
    """What one more slot costs at most: keys and values, masks, history, logits."""
    keys = cells_per_slot(rules) + source_tokens
    keys_values = 2 * architecture.decoder_layers * architecture.width * keys
    masks = rules.beams * cells_per_slot(rules) + source_tokens
    history = rules.beams * rules.max_length
    logits = 2 * rules.beams * architecture.vocabulary
    return dtype.itemsize * (keys_values + masks) + INDEX_BYTES * history + FLOAT_BYTES * logits
