"""Which sentence holds which slot. Host-side book-keeping; it knows no tensors.

A slot is one beam group's place in the preallocated caches: its row of cross-attention keys, its
cells of self-attention keys. The table is always asked for its occupied slots in ascending order,
which is also the order of the rows that a step runs.
"""

import heapq
from collections.abc import Collection
from dataclasses import dataclass

from inference_worker.engine.protocol import Sentence


@dataclass(slots=True)
class Slot:
    """A sentence being decoded.

    ``length`` counts its decoder tokens so far, start token included; ``limit`` is its
    ``max_length``; ``cells`` is one past the highest cell of self-attention keys it has written;
    ``steps`` counts selections made, which is where the history of its beams stands.
    """

    index: int
    sentence: Sentence
    length: int
    limit: int
    cells: int = 0
    steps: int = 0

    @property
    def sources(self) -> int:
        """Source tokens, which is how many cross-attention keys it has."""
        return len(self.sentence.source)


class SlotTable:
    """``width`` slots; the lowest free one is taken first, so that occupied slots lie together."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._free = list(range(width))
        self._taken: dict[int, Slot] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self, sentence: Sentence, length: int, limit: int) -> Slot:
        index = heapq.heappop(self._free)
        slot = self._taken[index] = Slot(index, sentence, length, limit)
        return slot

    def holds(self, slot: Slot) -> bool:
        """Whether a slot is still its sentence's."""
        return self._taken.get(slot.index) is slot

    def release(self, slot: Slot) -> None:
        del self._taken[slot.index]
        heapq.heappush(self._free, slot.index)

    def release_keys(self, keys: Collection[int]) -> None:
        for slot in [slot for slot in self._taken.values() if slot.sentence.key in keys]:
            self.release(slot)

    def occupied(self) -> list[Slot]:
        """Occupied slots, ascending by index."""
        return [self._taken[index] for index in sorted(self._taken)]

    def __len__(self) -> int:
        return len(self._taken)
