"""``python -m tests.chaos.worker``: a worker process without a model, fast enough for a million
records: what goes in comes out, stamped by the process that did it.

The stamp tells two executions of a record apart: an answer that changed its stamp was given twice.
"""

import os
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from broker import logs
from broker.options import parse
from broker.settings import BrokerSettings
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Finished, Hypothesis, Sentence
from inference_worker.serve import serve
from inference_worker.settings import WorkerSettings
from inference_worker.tokens import Vocabulary

MODEL = "stamping"
SLOTS = 64
STEP_S = 0.005
CRASHED = 66  # exit status of a worker that its record ended
POISON = ("raise", "hang", "crash")  # last words of texts that do so


class Stamping:
    """Translates each sentence to itself and the number of this process, all of them per step."""

    name = "stamping"
    device = "cpu"

    def __init__(self, vocabulary: Vocabulary, slots: int) -> None:
        self.slots = slots
        self._stamp = tuple(vocabulary.pieces(f"by {os.getpid()}"))
        self._poison = {kind: tuple(vocabulary.pieces(kind)) for kind in POISON}
        self._inside: dict[int, Sentence] = {}

    @property
    def free(self) -> int:
        return self.slots - len(self._inside)

    def admit(self, sentences: Sequence[Sentence]) -> None:
        self._inside.update((sentence.key, sentence) for sentence in sentences)

    def step(self) -> list[Finished]:
        time.sleep(STEP_S)
        for sentence in self._inside.values():
            for kind, pieces in self._poison.items():
                if sentence.source[-1 - len(pieces) : -1] == pieces:
                    _suffer(kind)
        finished = [
            Finished(key, (Hypothesis(sentence.source[1:-1] + self._stamp, 0.0),))
            for key, sentence in self._inside.items()
        ]
        self._inside.clear()
        return finished

    def drop(self, keys: Collection[int]) -> None:
        for key in keys:
            self._inside.pop(key, None)

    def reset(self) -> None:
        self._inside.clear()


def _suffer(kind: str) -> None:
    if kind == "crash":
        os._exit(CRASHED)
    if kind == "hang":
        time.sleep(3_600)
    raise RuntimeError("shapes do not match")


def main(arguments: list[str]) -> None:
    """The first argument is the checkpoint whose vocabulary is used, the rest are flags of
    ``dragoman-worker``."""
    broker_settings, settings = parse(
        [BrokerSettings, WorkerSettings],
        arguments[1:],
        os.environ,
        program="chaos-worker",
        description="A worker without a model.",
    )
    logs.configure("info")
    vocabulary = Vocabulary(Path(arguments[0]))
    model = LanguageModel(MODEL, "none", vocabulary, settings.max_source_tokens, max_length=200)
    serve(broker_settings, settings, model, Stamping(vocabulary, settings.slots or SLOTS))


if __name__ == "__main__":
    main(sys.argv[1:])
