"""From the history of a beam group back to token sequences. It knows no tensors."""

from collections.abc import Sequence


def walk_back(
    tokens: Sequence[Sequence[int]],
    parents: Sequence[Sequence[int]],
    step: int,
    parent: int,
    last: int,
) -> list[int]:
    """The token sequence that ends with ``last``, chosen at ``step`` as a child of beam ``parent``.

    ``tokens[i][k]`` is what beam ``k`` was given at step ``i`` and ``parents[i][k]`` the beam
    it continued, numbered as before that step.
    """
    sequence = [last]
    for earlier in range(step - 1, -1, -1):
        sequence.append(tokens[earlier][parent])
        parent = parents[earlier][parent]
    sequence.reverse()
    return sequence
