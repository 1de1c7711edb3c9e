"""Decides what each step works on: which sentences are encoded together, which take freed slots,
and how the occupied slots are cut into attention segments. It knows no tensors.

A sentence passes three places: *waiting* (token ids only), *ready* (encoded, its cross-attention
keys computed, no slot yet) and a *slot*. Encoding runs ahead of the slots in micro-batches: reading
all encoder weights for the one sentence that fits a freed slot would cost a third of a decode step
every time, and waiting until several slots are free would leave them idle.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.slots import Slot, SlotTable
from inference_worker.engine.protocol import Sentence

ENCODE_TOKENS = 128  # a micro-batch this large uses the arithmetic units well
ENCODE_TOKENS_MAX = 1024  # bounds the memory and the time of one micro-batch
AHEAD_MIN = 8  # sentences held beyond the slots, so that encoding can run ahead


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring slots whose attention is computed in one call, padded to common limits.

    ``rows`` are beam groups in the compacted batch of this step; ``slots`` the same groups in the
    caches; ``cells`` and ``sources`` how many self- and cross-attention keys are looked at.
    """

    rows: slice
    slots: slice
    cells: int
    sources: int


class Scheduler:
    """First come, first served through waiting, ready and the slots."""

    def __init__(self, width: int, rules: Rules, launch_cells: int) -> None:
        self.table = SlotTable(width)
        self.capacity = width + max(AHEAD_MIN, width // 2)
        self._rules = rules
        self._launch_cells = launch_cells
        self._waiting: deque[Sentence] = deque()
        self._ready: deque[Sentence] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._ready) + len(self.table)

    @property
    def free(self) -> int:
        return max(0, self.capacity - len(self))

    def admit(self, sentences: Sequence[Sentence]) -> None:
        self._waiting.extend(sentences)

    def inside(self) -> list[Sentence]:
        """Every sentence, those furthest along first."""
        return [*(slot.sentence for slot in self.table.occupied()), *self._ready, *self._waiting]

    def drop(self, keys: Collection[int]) -> None:
        self.table.release_keys(keys)
        self._ready = deque(sentence for sentence in self._ready if sentence.key not in keys)
        self._waiting = deque(sentence for sentence in self._waiting if sentence.key not in keys)

    def micro_batch(self) -> list[Sentence]:
        """Sentences to encode now, which are ready from here on. None while the slots are served
        and what waits is still too little to encode well."""
        served = len(self._ready) >= self.table.free
        if served and sum(len(sentence.source) for sentence in self._waiting) < ENCODE_TOKENS:
            return []
        batch: list[Sentence] = []
        tokens = 0
        while self._waiting:
            tokens += len(self._waiting[0].source)
            if batch and tokens > ENCODE_TOKENS_MAX:
                break
            batch.append(self._waiting.popleft())
        self._ready.extend(batch)
        return batch

    def place(self) -> list[Slot]:
        """Moves ready sentences into free slots. With beams, start token and language enter in one
        step, on two rows of the group; a greedy group has one row and takes them one by one."""
        placed = []
        while self._ready and self.table.free:
            sentence = self._ready.popleft()
            length = 1 if self._rules.beams == 1 else 2
            limit = self._rules.limit(len(sentence.source))
            placed.append(self.table.take(sentence, length, limit))
        return placed

    def segments(self, occupied: Sequence[Slot]) -> list[Segment]:
        """Cuts the occupied slots into segments that cost least.

        Attention pads every group of a call to the longest of them, so one runaway of 200 tokens
        would make all its neighbours pay for 200; each further call costs about as much as
        ``launch_cells`` keys. Neighbours merge where that is cheaper.
        """
        merged: list[Segment] = []
        for row, slot in enumerate(occupied):
            segment = Segment(
                slice(row, row + 1), slice(slot.index, slot.index + 1), slot.cells, slot.sources
            )
            while merged and merged[-1].slots.stop == segment.slots.start:
                both = joined(merged[-1], segment)
                if keys(both) > keys(merged[-1]) + keys(segment) + self._launch_cells:
                    break
                merged.pop()
                segment = both
            merged.append(segment)
        return merged


def joined(left: Segment, right: Segment) -> Segment:
    """Two neighbouring segments as one."""
    return Segment(
        slice(left.rows.start, right.rows.stop),
        slice(left.slots.start, right.slots.stop),
        max(left.cells, right.cells),
        max(left.sources, right.sources),
    )


def keys(segment: Segment) -> int:
    """Keys that the attention of a segment reads, padding included."""
    groups: int = segment.rows.stop - segment.rows.start
    return groups * (segment.cells + segment.sources)
