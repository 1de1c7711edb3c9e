"""The continuous engine: one ``step`` is schedule → run → select → retire over all slots."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from inference_worker.engine.continuous.answers import Answer, Answers
from inference_worker.engine.continuous.beams import Beams
from inference_worker.engine.continuous.caches import Caches, Slots, slot_bytes
from inference_worker.engine.continuous.checkpoint import Checkpoint, load_checkpoint
from inference_worker.engine.continuous.decoder import Decoder
from inference_worker.engine.continuous.encoder import Encoder
from inference_worker.engine.continuous.graphs import Capture, Graphs, cuda_capture
from inference_worker.engine.continuous.head import VocabularyHead
from inference_worker.engine.continuous.placement import DTYPES, ComputeType, place
from inference_worker.engine.continuous.plans import Buckets, Plan, compact
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.schedule import Scheduler
from inference_worker.engine.continuous.streams import Beside, Pending
from inference_worker.engine.protocol import Finished, Sentence

MIB = 2**20
LAUNCH_KEYS = 50_000  # ÷ model width: keys whose attention costs as much as one more call


class MemoryBudgetTooSmall(ValueError):
    """The budget does not hold the weights and a single slot."""


class ContinuousEngine:
    """The Engine protocol over slot caches. Not thread-safe; results never depend on what else is
    inside.

    When memory runs out, the engine halves its slots by itself and starts what was inside anew;
    the step that met the limit returns nothing.
    """

    name = "torch"

    def __init__(
        self,
        checkpoint: Checkpoint,
        rules: Rules,
        *,
        width: int,
        source_tokens: int | None = None,
        compute_type: ComputeType = "float32",
        device: str = "cpu",
        capture: Capture | None = None,
    ) -> None:
        """``capture`` makes steps of fixed shapes and replays them, which is what a GPU does."""
        self.device = device
        self.source_tokens = source_tokens or checkpoint.architecture.positions
        self.width = width  # beam groups decoded at once
        self.rules = rules
        self.steps = 0  # decode steps so far, and the slots that were occupied in them
        self.occupied_slots = 0
        self._architecture = checkpoint.architecture
        self._placement = place(compute_type, device)
        on_cuda = self._placement.device.type == "cuda"
        self._capture = cuda_capture() if capture is None and on_cuda else capture
        with torch.inference_mode():
            self._encoder = Encoder(checkpoint, self._placement, padded=self._fixed_shapes)
            self._decoder = Decoder(checkpoint, self._placement)
            self._head = VocabularyHead(checkpoint, self._placement)
            self._rebuild()

    @property
    def slots(self) -> int:
        return self._scheduler.capacity

    @property
    def free(self) -> int:
        return self._scheduler.free

    def admit(self, sentences: Sequence[Sentence]) -> None:
        for sentence in sentences:
            if not 1 <= len(sentence.source) <= self.source_tokens:
                raise ValueError(f"a source of {len(sentence.source)} tokens does not fit")
        self._scheduler.admit(sentences)

    def step(self) -> list[Finished]:
        try:
            with torch.inference_mode():
                return self._step()
        except (MemoryError, RuntimeError) as error:
            if self.width == 1 or not out_of_memory(error):
                raise
        self._halve()
        return []

    def _step(self) -> list[Finished]:
        plan = self._schedule()
        answer = self._graphs.replay(plan)
        if answer is None:  # no such step was captured; on CPUs none ever is
            states = self._run(plan)
            answer = self._select(plan, states)
        return self._retire(self._answers.exchange(plan, answer))

    def _schedule(self) -> Plan:
        """Encodes a micro-batch if one is due and fills free slots."""
        batch = self._scheduler.micro_batch()
        if batch:
            sources = [sentence.source for sentence in batch]
            encoded = self._beside.run(lambda: self._encoder.encode(sources))
            for sentence, keys_values in zip(batch, encoded, strict=True):
                self._encoded[sentence.key] = keys_values
        if placed := self._scheduler.place():
            keys = [self._encoded.pop(slot.sentence.key).take() for slot in placed]
            self._caches.place(placed, keys)
            self._beams.place(placed)
        occupied = self._scheduler.table.occupied()
        self.steps += 1
        self.occupied_slots += len(occupied)
        if self._fixed_shapes:
            return self._buckets.plan(occupied)
        return compact(occupied, self._scheduler.segments(occupied), self.rules)

    def _run(self, plan: Plan) -> Tensor:
        """One token on every beam of every slot → states [groups × beams, model width]."""
        slots = self._index(plan)
        return self._decoder.forward(
            self._beams.tokens[slots].flatten(),
            self._beams.positions[slots].flatten(),
            self._caches,
            self._caches.write_index(slots),
            plan.segments,
        )

    def _select(self, plan: Plan, states: Tensor) -> Tensor:
        """Chooses the next token of every beam; returns which groups are done and the highest cell
        that each took, [2, slots]. Like ``_run`` it asks the device nothing."""
        slots = self._index(plan)
        banned = self._beams.banned(slots, plan.ngram, self._head.padded_vocabulary)
        values, tokens = self._head.top(states, 2 * self.rules.beams, banned)
        parents, done = self._beams.select(slots, plan.ngram, values, tokens)
        cells = self._caches.branch(slots, parents, plan.used)
        return torch.stack([done.to(cells.dtype), cells.amax(dim=1)])

    def _retire(self, answers: Sequence[Answer]) -> list[Finished]:
        """Takes note of answers, reads the hypotheses of the groups that are done and frees their
        slots. A slot may have been freed since its answer was on its way."""
        table, done = self._scheduler.table, []
        for slot, is_done, highest in answers:
            if not table.holds(slot):
                continue
            slot.steps += 1
            slot.cells = max(slot.cells, highest + 1)
            if is_done:
                done.append(slot)
                table.release(slot)
        if not done:
            return []
        with self._answers.reading():
            found = self._beams.outcomes(done)
        return [Finished(slot.sentence.key, each) for slot, each in zip(done, found, strict=True)]

    def _index(self, plan: Plan) -> Slots:
        """The slots of a plan as an index; a range copies nothing."""
        if isinstance(plan.slots, range):
            return slice(plan.slots.start, plan.slots.stop)
        return torch.tensor(plan.slots, device=self._placement.device)

    def drop(self, keys: Collection[int]) -> None:
        self._scheduler.drop(keys)
        for key in keys:
            self._encoded.pop(key, None)

    def reset(self) -> None:
        with torch.inference_mode():
            self._rebuild()

    def _rebuild(self) -> None:
        """Forgets every sentence and makes caches for ``width`` slots."""
        architecture, rules, device = self._architecture, self.rules, self._placement.device
        self._encoded: dict[int, Pending] = {}  # cross keys and values of sentences without a slot
        self._scheduler = Scheduler(self.width, rules, LAUNCH_KEYS // architecture.width)
        self._caches = Caches(architecture, rules, self.width, self.source_tokens, self._placement)
        self._beams = Beams(architecture, rules, self.width, device)
        self._beside = Beside(device)
        self._answers = Answers(late=self._fixed_shapes, device=device)
        self._buckets = Buckets(self.width, self._caches.cells, self.source_tokens, rules)
        self._graphs = Graphs()
        if self._capture:
            self._graphs.capture(self._both, self._buckets.all(), self._capture)

    def _both(self, plan: Plan) -> Tensor:
        return self._select(plan, self._run(plan))

    @property
    def _fixed_shapes(self) -> bool:
        return self._capture is not None

    def _halve(self) -> None:
        inside = self._scheduler.inside()
        self.width //= 2
        del self._caches, self._beams, self._graphs
        self.reset()
        self._scheduler.admit(inside)


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or in the C library."""
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def open_engine(
    directory: Path,
    rules: Rules,
    *,
    memory_mib: int,
    width: int,
    compute_type: ComputeType,
    device: str = "cpu",
    source_tokens: int | None = None,
) -> ContinuousEngine:
    """An engine with as many slots as ``memory_mib`` holds, at most ``width``.

    ``source_tokens`` is the longest source it must take, language token and ``</s>`` included; None
    means as long as the model allows, which costs every slot that much room. Raises
    MemoryBudgetTooSmall if not one slot fits, UnsupportedCheckpoint if ``directory`` is no
    checkpoint.
    """
    checkpoint = load_checkpoint(directory)
    positions = checkpoint.architecture.positions
    source_tokens = min(source_tokens or positions, positions)
    each = slot_bytes(
        checkpoint.architecture, rules, source_tokens, place(compute_type, device).keys
    )
    weights = weight_bytes(checkpoint, compute_type)
    affordable = (memory_mib * MIB - weights) // each
    if affordable < 1:
        needed = -(-(weights + each) // MIB)
        raise MemoryBudgetTooSmall(
            f"{memory_mib} MiB are too few: the weights and one slot take {needed} MiB"
        )
    return ContinuousEngine(
        checkpoint,
        rules,
        width=min(width, affordable),
        source_tokens=source_tokens,
        compute_type=compute_type,
        device=device,
    )


def weight_bytes(checkpoint: Checkpoint, compute_type: ComputeType) -> int:
    """What the weights take once packed; a tied embedding table is held twice, once to look up
    tokens and once packed as the output projection."""
    each = 1 if compute_type == "int8" else DTYPES[compute_type].itemsize
    table = checkpoint.table("lm_head").numel()
    weights = sum(weight.numel() for weight in checkpoint.weights.values())
    return weights * each + table * max(2, each)
