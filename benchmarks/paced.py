"""A worker whose engine waits instead of computing, so that processors do not limit how many run.
Everything around the engine is the real worker: queue, leases, sentences, tokens, results.

    python -m benchmarks.paced --slots 16 --batch-s 0.5 [flags of dragoman-worker]
"""

import logging
import os
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.options import option, parse
from broker.settings import BrokerSettings
from inference_worker.checkpoint import find
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence
from inference_worker.serve import serve
from inference_worker.settings import WorkerSettings
from inference_worker.tokens import Vocabulary

SLOTS = 16


@dataclass(frozen=True)
class PaceSettings:
    """How long the engine takes."""

    batch_s: float = option(0.5, "Seconds a batch takes, however many sentences are in it.")


class PacedEngine:
    """Gives each sentence back after ``batch_s``, all that are inside at once: a device for which
    a batch costs the same whether it is full or not."""

    name = "paced"
    device = "none"

    def __init__(self, slots: int, batch_s: float) -> None:
        self.slots = slots
        self._batch_s = batch_s
        self._inside: dict[int, Sentence] = {}

    @property
    def free(self) -> int:
        return self.slots - len(self._inside)

    def admit(self, sentences: Sequence[Sentence]) -> None:
        self._inside.update((sentence.key, sentence) for sentence in sentences)

    def step(self) -> list[Finished]:
        time.sleep(self._batch_s)
        batch = list(self._inside.values())
        self._inside.clear()
        return [Finished(one.key, (Hypothesis(one.source[1:-1], 0.0),)) for one in batch]

    def drop(self, keys: Collection[int]) -> None:
        for key in keys:
            self._inside.pop(key, None)

    def reset(self) -> None:
        self._inside.clear()


def main(arguments: Sequence[str] | None = None) -> None:
    broker, settings, pace = parse(
        [BrokerSettings, WorkerSettings, PaceSettings],
        sys.argv[1:] if arguments is None else arguments,
        os.environ,
        program="benchmarks.paced",
        description="A worker that waits instead of computing.",
    )
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    checkpoint = find(settings.model, Path(settings.cache_dir).expanduser())
    model = LanguageModel(
        name=checkpoint.name,
        revision="paced",
        vocabulary=Vocabulary(checkpoint.folder),
        max_source_tokens=settings.max_source_tokens,
        max_length=200,
    )
    serve(broker, settings, model, PacedEngine(settings.slots or SLOTS, pace.batch_s))


if __name__ == "__main__":
    main()
