"""The continuous engine: one ``step`` is schedule → run → select → retire over all slots."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import Tensor

from inference_worker.engine.continuous.beams import Beams
from inference_worker.engine.continuous.caches import Caches, Slots, slot_bytes
from inference_worker.engine.continuous.checkpoint import Checkpoint, load_checkpoint
from inference_worker.engine.continuous.decoder import Decoder
from inference_worker.engine.continuous.encoder import Encoder
from inference_worker.engine.continuous.head import VocabularyHead
from inference_worker.engine.continuous.linear import ComputeType, cache_dtype
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.continuous.schedule import Scheduler
from inference_worker.engine.continuous.slots import Slot
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
    ) -> None:
        self.device = device
        self.source_tokens = source_tokens or checkpoint.architecture.positions
        self.width = width  # beam groups decoded at once
        self.rules = rules
        self.steps = 0  # decode steps so far, and the slots that were occupied in them
        self.occupied_slots = 0
        self._architecture = checkpoint.architecture
        self._cache_dtype = cache_dtype(compute_type)
        with torch.inference_mode():
            self._encoder = Encoder(checkpoint, compute_type)
            self._decoder = Decoder(checkpoint, compute_type)
            self._head = VocabularyHead(checkpoint, compute_type)
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
        occupied = self._schedule()
        slots = index_of(occupied)
        states = self._run(occupied, slots)
        done = self._select(occupied, slots, states)
        return [self._retire(slot) for slot in done]

    def _schedule(self) -> list[Slot]:
        """Encodes a micro-batch if one is due, fills free slots; returns the occupied ones."""
        batch = self._scheduler.micro_batch()
        if batch:
            encoded = self._encoder.encode([sentence.source for sentence in batch])
            for sentence, keys_values in zip(batch, encoded, strict=True):
                self._encoded[sentence.key] = keys_values
        for slot in self._scheduler.place():
            slot.cells = self._caches.place(slot.index, self._encoded.pop(slot.sentence.key))
            self._beams.place(slot)
        return self._scheduler.table.occupied()

    def _run(self, occupied: list[Slot], slots: Slots) -> Tensor:
        """One token on every beam of every occupied slot → states [groups × beams, model width]."""
        self.steps += 1
        self.occupied_slots += len(occupied)
        return self._decoder.forward(
            self._beams.tokens[slots].flatten(),
            self._beams.positions[slots].flatten(),
            self._caches,
            self._caches.write_index(slots),
            self._scheduler.segments(occupied),
        )

    def _select(self, occupied: list[Slot], slots: Slots, states: Tensor) -> list[Slot]:
        """Chooses the next token of every beam; returns the slots whose search is done."""
        ngram = max(self.rules.ngram(slot.sentence) for slot in occupied)
        banned = self._beams.banned(slots, ngram, self._head.padded_vocabulary)
        values, tokens = self._head.top(states, 2 * self.rules.beams, banned)
        parents, done = self._beams.select(slots, ngram, values, tokens)
        cells = self._caches.branch(slots, parents, max(slot.cells for slot in occupied))
        answers = zip(occupied, done.tolist(), cells.amax(dim=1).tolist(), strict=True)
        finished = []
        for slot, is_done, highest in answers:
            if is_done:
                finished.append(slot)
            slot.steps += 1
            slot.length += 1
            slot.cells = max(slot.cells, highest + 1)
        return finished

    def _retire(self, slot: Slot) -> Finished:
        """Reads a finished group's hypotheses and frees its slot for the next step."""
        hypotheses = self._beams.outcome(slot)
        self._scheduler.table.release(slot)
        return Finished(slot.sentence.key, hypotheses)

    def drop(self, keys: Collection[int]) -> None:
        self._scheduler.drop(keys)
        for key in keys:
            self._encoded.pop(key, None)

    def reset(self) -> None:
        with torch.inference_mode():
            self._rebuild()

    def _rebuild(self) -> None:
        """Forgets every sentence and makes caches for ``width`` slots."""
        architecture, rules, device = self._architecture, self.rules, torch.device(self.device)
        self._encoded: dict[int, Tensor] = {}  # cross keys and values of sentences without a slot
        self._scheduler = Scheduler(self.width, rules, LAUNCH_KEYS // architecture.width)
        self._caches = Caches(
            architecture, rules, self.width, self.source_tokens, self._cache_dtype, device
        )
        self._beams = Beams(architecture, rules, self.width, device)

    def _halve(self) -> None:
        inside = self._scheduler.inside()
        self.width //= 2
        del self._caches, self._beams
        self.reset()
        self._scheduler.admit(inside)


def index_of(occupied: Sequence[Slot]) -> Slots:
    """Occupied slots as an index: a range, which copies nothing, where they lie together."""
    first, last = occupied[0].index, occupied[-1].index
    if last - first + 1 == len(occupied):
        return slice(first, last + 1)
    return torch.tensor([slot.index for slot in occupied])


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
    each = slot_bytes(checkpoint.architecture, rules, source_tokens, cache_dtype(compute_type))
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
    )


def weight_bytes(checkpoint: Checkpoint, compute_type: ComputeType) -> int:
    """What the weights take once packed; a tied embedding table is held twice, once to look up
    tokens and once packed as the output projection."""
    each = {"float32": 4, "bfloat16": 2, "int8": 1}[compute_type]
    table = checkpoint.table("lm_head").numel()
    weights = sum(weight.numel() for weight in checkpoint.weights.values())
    return weights * each + table * max(2, each)
