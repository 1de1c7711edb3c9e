"""What the host learns of each step: which groups are done and which cells they took.

On a CPU it is read at once. A GPU works ahead of the host: the answer of a step is copied out while
the next step runs and read after that one was launched, so that the GPU never waits for the host.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from inference_worker.engine.continuous.plans import Plan
from inference_worker.engine.continuous.slots import Slot


class Answer(NamedTuple):
    """Of one occupied slot: whether its search is done, and the highest cell it took."""

    slot: Slot
    done: bool
    highest_cell: int


class Answers:
    """Answers in order, each at once or, if ``late``, when the next one is handed in."""

    def __init__(self, late: bool, device: torch.device) -> None:
        self._late = late
        self._earlier: tuple[Plan, Tensor, torch.cuda.Event | None] | None = None
        self._reader = torch.cuda.Stream(device) if device.type == "cuda" else None

    def exchange(self, plan: Plan, answer: Tensor) -> Sequence[Answer]:
        """Takes the answer [2, slots] to a plan, done or not above highest cells; returns what can
        be read now."""
        if not self._late:
            return read(plan, answer)
        earlier, self._earlier = self._earlier, (plan, *self._copied(answer))
        if earlier is None:
            return ()
        before, values, ready = earlier
        if ready is not None:
            ready.synchronize()
        return read(before, values)

    def _copied(self, answer: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """A copy that the next step does not overwrite, and when it will be complete."""
        if self._reader is None:
            return answer.clone(), None
        copy = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
        copy.copy_(answer, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return copy, ready

    @contextmanager
    def reading(self) -> Iterator[None]:
        """For reading what finished groups have left, which no step changes any more: beside the
        step that has been launched since."""
        with torch.cuda.stream(self._reader) if self._reader else nullcontext():
            yield


def read(plan: Plan, answer: Tensor) -> list[Answer]:
    """The answer [2, slots] to a plan, by occupied slot."""
    done, highest = answer.tolist()
    return [
        Answer(slot, bool(done[column]), highest[column])
        for slot, column in zip(plan.occupied, plan.columns, strict=True)
    ]
