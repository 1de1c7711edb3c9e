"""What one step computes, decided on the host. It knows no tensors.

On a CPU a step computes the occupied slots and nothing else, cut into attention segments. A GPU
replays captured steps, whose shapes are fixed: there a step computes the first so many slots, empty
ones included, and looks so far, each rounded up to one of a few sizes (``Buckets``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.schedule import Segment
from inference_worker.engine.continuous.slots import Slot

Shape = tuple[int, int]  # slots computed, and which reach

# The host learns which cells a step took only after it has launched the next one, so a plan allows
# for what two steps may take.
STEPS_UNSEEN = 2
LEAST_REACH = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: ``slots`` are computed, ``occupied`` hold sentences, ``segments`` cut the slots for
    attention, ``used`` cells of any slot may be taken, ``ngram`` is the longest n-gram that may not
    come twice in any of them. ``shape`` is None for a step that is not to be replayed."""

    slots: range | tuple[int, ...]
    occupied: tuple[Slot, ...]
    segments: tuple[Segment, ...]
    used: int
    ngram: int
    shape: Shape | None = None

    @property
    def columns(self) -> list[int]:
        """Where the answers for ``occupied`` stand among those for ``slots``."""
        if len(self.slots) == len(self.occupied):
            return list(range(len(self.occupied)))
        return [slot.index - self.slots[0] for slot in self.occupied]


def compact(occupied: Sequence[Slot], segments: Sequence[Segment], rules: Rules) -> Plan:
    """A step over the occupied slots alone."""
    first, last = occupied[0].index, occupied[-1].index
    together = last - first + 1 == len(occupied)
    return Plan(
        range(first, last + 1) if together else tuple(slot.index for slot in occupied),
        tuple(occupied),
        tuple(segments),
        max(slot.cells for slot in occupied),
        longest_ngram(occupied, rules),
    )


def longest_ngram(occupied: Sequence[Slot], rules: Rules) -> int:
    """Tokens of the longest sequence that some sentence may not repeat; 0 if all may."""
    return max((rules.ngram(slot.sentence) for slot in occupied), default=0)


class Buckets:
    """The shapes of replayed steps: powers of two up to ``width`` slots, and reaches that double
    up to all ``cells`` and ``sources`` of a slot."""

    def __init__(self, width: int, cells: int, sources: int, rules: Rules) -> None:
        self._rules = rules
        self._widths = doubling(1, width)
        lengths = doubling(LEAST_REACH, max(-(-cells // rules.beams), sources))
        self._reaches = [
            (min(cells, length * rules.beams), min(sources, length)) for length in lengths
        ]

    def plan(self, occupied: Sequence[Slot]) -> Plan:
        """The smallest shape in which every occupied slot has what it may need."""
        width = occupied[-1].index + 1
        sources = max(slot.sources for slot in occupied)
        cells = max(slot.cells for slot in occupied) + STEPS_UNSEEN * self._rules.beams
        cells = min(cells, self._reaches[-1][0])
        width = next(size for size in self._widths if size >= width)
        reach = next(
            at
            for at, (most_cells, most_sources) in enumerate(self._reaches)
            if cells <= most_cells and sources <= most_sources
        )
        return self._shaped((width, reach), occupied)

    def all(self) -> Iterator[Plan]:
        """A plan of every shape, with nobody inside; the largest first, so that what it needs is
        there for the others."""
        for width in reversed(self._widths):
            for reach in reversed(range(len(self._reaches))):
                yield self._shaped((width, reach), ())

    def _shaped(self, shape: Shape, occupied: Sequence[Slot]) -> Plan:
        width, (cells, sources) = shape[0], self._reaches[shape[1]]
        whole = Segment(slice(0, width), slice(0, width), cells, sources)
        used = cells - self._rules.beams
        ngram = longest_ngram(occupied, self._rules)
        return Plan(range(width), tuple(occupied), (whole,), used, ngram, shape)


def doubling(least: int, most: int) -> list[int]:
    """``least``, twice that and so on, and at last ``most``."""
    sizes = []
    while least < most:
        sizes.append(least)
        least *= 2
    return [*sizes, most]
