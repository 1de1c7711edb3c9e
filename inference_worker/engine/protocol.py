"""The narrow protocol between the worker's loop and whatever translates token ids."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence as token ids, ready for the engine.

    ``source`` is what the encoder reads: source language token, pieces, ``</s>``.
    ``target_language`` is the token forced as the first generated one. ``no_repeat_ngram`` above 0
    overrides the engine's rules for this sentence: no sequence of so many tokens may come twice.
    ``urgent`` ones may go before others that an engine holds without translating them yet.
    """

    key: int  # unique among the sentences in the engine
    source: tuple[int, ...]
    target_language: int
    no_repeat_ngram: int = 0
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A translation: generated ids after the language token, ``</s>`` left out, and its score
    (sum of log-probabilities over length to the power of the length penalty)."""

    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Finished:
    """A sentence that left the engine, its hypotheses best first (at least one)."""

    key: int
    hypotheses: tuple[Hypothesis, ...] = field(default=())


class Engine(Protocol):
    """Translates sentences. Used from one thread; none of the methods blocks on anything but
    arithmetic."""

    name: str  # for the heartbeat and for ``details``
    device: str

    @property
    def slots(self) -> int:
        """Sentences it can hold at once."""

    @property
    def free(self) -> int:
        """How many more sentences ``admit`` takes now."""

    def admit(self, sentences: Sequence[Sentence]) -> None:
        """Takes at most ``free`` sentences; their languages may differ from one to the next."""

    def step(self) -> list[Finished]:
        """Runs one unit of work over what was admitted and returns the sentences that ended.

        Must be called while sentences are inside. May raise anything: the caller then calls
        ``reset`` and admits again what was inside, in smaller groups.
        """

    def drop(self, keys: Collection[int]) -> None:
        """Forgets sentences nobody wants any more; their slots become free."""

    def reset(self) -> None:
        """Forgets every sentence and rebuilds whatever a failed step may have left broken."""
