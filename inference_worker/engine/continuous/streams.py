"""Work beside the decode steps: on a GPU a second stream, on a CPU simply now."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pending:
    """A tensor that another stream may still be computing."""

    tensor: Tensor
    ready: torch.cuda.Event | None

    def take(self) -> Tensor:
        """The tensor, for use on the current stream."""
        if self.ready is not None:
            current = torch.cuda.current_stream()
            current.wait_event(self.ready)
            self.tensor.record_stream(current)
        return self.tensor


class Beside:
    """Runs encoder batches while the decoder goes on."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, work: Callable[[], list[Tensor]]) -> list[Pending]:
        if self._stream is None:
            return [Pending(tensor, None) for tensor in work()]
        with torch.cuda.stream(self._stream):
            results = work()
            ready = torch.cuda.Event()
            ready.record()
        return [Pending(tensor, ready) for tensor in results]
