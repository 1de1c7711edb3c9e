"""Replaying steps on a GPU: a decode step is hundreds of small kernels, whose launches one by one
cost more than the kernels themselves. A CUDA graph launches them all at once, on the addresses and
in the shapes it was captured with."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from inference_worker.engine.continuous.plans import Plan, Shape

Replay = Callable[[], Tensor]
Capture = Callable[[Callable[[], Tensor]], Replay]


class Graphs:
    """The captured steps by shape; none on a CPU."""

    def __init__(self) -> None:
        self._captured: dict[Shape, Replay] = {}

    def capture(
        self, advance: Callable[[Plan], Tensor], plans: Iterable[Plan], capture: Capture
    ) -> None:
        """Captures a step of every shape. Nobody may be inside: each runs once before, for the
        libraries to choose their kernels and to take their memory."""
        for plan in plans:
            advance(plan)
            if plan.shape is not None:
                self._captured[plan.shape] = capture(partial(advance, plan))

    def replay(self, plan: Plan) -> Tensor | None:
        """The answer to a plan, which lives until the next one is replayed. None if it must be
        computed otherwise: its shape was not captured, or forbidden n-grams make it depend on more
        than its shape."""
        if plan.ngram or plan.shape not in self._captured:
            return None
        return self._captured[plan.shape]()


def cuda_capture() -> Capture:
    """Captures into CUDA graphs that share one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def capture(run: Callable[[], Tensor]) -> Replay:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            answer = run()

        def replay() -> Tensor:
            graph.replay()
            return answer

        return replay

    return capture
