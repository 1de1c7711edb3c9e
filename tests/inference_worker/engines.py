"""Engines without a model, for tests of the loop: they say back what they were given, at a pace,
and fail on command."""

import os
import time
from collections.abc import Callable, Collection, Sequence

from inference_worker.engine.protocol import Finished, Hypothesis, Sentence


class Echo:
    """Translates each sentence to itself, up to ``width`` per step, oldest first.

    ``batches`` keeps what was inside at every step, for tests that ask who shared the engine.
    """

    name = "echo"
    device = "cpu"

    def __init__(
        self,
        slots: int = 8,
        width: int = 1_000,
        fault: Callable[[list[Sentence]], None] = lambda inside: None,
    ) -> None:
        self.slots = slots
        self.width = width
        self.fault = fault
        self.inside: dict[int, Sentence] = {}
        self.batches: list[list[int]] = []
        self.resets = 0

    @property
    def free(self) -> int:
        return self.slots - len(self.inside)

    def admit(self, sentences: Sequence[Sentence]) -> None:
        assert len(sentences) <= self.free
        self.inside.update((sentence.key, sentence) for sentence in sentences)

    def step(self) -> list[Finished]:
        batch = list(self.inside.values())
        assert batch, "a step without sentences"
        self.batches.append([sentence.key for sentence in batch])
        self.fault(batch)
        finished = batch[: self.width]
        self.drop([sentence.key for sentence in finished])
        return [Finished(s.key, (Hypothesis(s.source[1:-1], 0.0),)) for s in finished]

    def drop(self, keys: Collection[int]) -> None:
        for key in keys:
            self.inside.pop(key, None)

    def reset(self) -> None:
        self.inside.clear()
        self.resets += 1


def holding(sentence: tuple[int, ...]) -> Callable[[list[Sentence]], bool]:
    """Whether one of the sentences inside has these pieces."""
    return lambda inside: any(s.source[1:-1] == sentence for s in inside)


def raising(sentence: tuple[int, ...]) -> Callable[[list[Sentence]], None]:
    """A fault: a Python exception while a certain sentence is inside."""
    inside_it = holding(sentence)

    def fault(inside: list[Sentence]) -> None:
        if inside_it(inside):
            raise RuntimeError("shapes do not match")

    return fault


def quoting(sentence: tuple[int, ...], text: str) -> Callable[[list[Sentence]], None]:
    """A fault: as ``raising``, with an error that quotes what was being translated."""
    inside_it = holding(sentence)

    def fault(inside: list[Sentence]) -> None:
        if inside_it(inside):
            raise RuntimeError(f"cannot translate {text!r}") from ValueError(text)

    return fault


def crashing(sentence: tuple[int, ...]) -> Callable[[list[Sentence]], None]:
    """A fault: the process is gone, as after a segmentation fault."""
    inside_it = holding(sentence)

    def fault(inside: list[Sentence]) -> None:
        if inside_it(inside):
            os._exit(11)

    return fault


def hanging(sentence: tuple[int, ...], once: str) -> Callable[[list[Sentence]], None]:
    """A fault: the step never ends, as long as the file ``once`` is not there."""
    inside_it = holding(sentence)

    def fault(inside: list[Sentence]) -> None:
        if inside_it(inside) and not os.path.exists(once):
            with open(once, "w"):
                pass
            time.sleep(3_600)

    return fault
