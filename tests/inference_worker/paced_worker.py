"""A real worker process without a model: an echo engine at a pace, with a fault on command.

    python -m tests.inference_worker.paced_worker FAULT TEXT ONCE PACE_S [flags of dragoman-worker]

FAULT is none, raise, quote (raise, and quote TEXT), crash or hang, when the sentence TEXT is in the
engine; a hang only happens while the file ONCE is not there.
"""

import os
import sys
import time
from pathlib import Path

from broker import logs
from broker.options import parse
from broker.settings import BrokerSettings
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Finished
from inference_worker.serve import serve
from inference_worker.settings import WorkerSettings
from inference_worker.tokens import Vocabulary
from tests.inference_worker.engines import Echo, crashing, hanging, quoting, raising

SMALL = Path(__file__).parents[2] / "models" / "small"


class Paced(Echo):
    """An echo whose every step takes ``pace_s``."""

    pace_s = 0.0

    def step(self) -> list[Finished]:
        finished = super().step()
        time.sleep(self.pace_s)
        return finished


def main(arguments: list[str]) -> None:
    kind, text, once, pace_s = arguments[:4]
    broker_settings, settings = parse(
        [BrokerSettings, WorkerSettings],
        arguments[4:],
        os.environ,
        program="paced-worker",
        description="A worker without a model.",
    )
    logs.configure("info")
    vocabulary = Vocabulary(SMALL)
    sentence = tuple(vocabulary.pieces(text))
    engine = Paced(slots=settings.slots or 16, width=settings.slots or 16)
    if kind == "raise":
        engine.fault = raising(sentence)
    elif kind == "quote":
        engine.fault = quoting(sentence, text)
    elif kind == "crash":
        engine.fault = crashing(sentence)
    elif kind == "hang":
        engine.fault = hanging(sentence, once)
    engine.pace_s = float(pace_s)
    model = LanguageModel("small", "echo", vocabulary, settings.max_source_tokens, max_length=200)
    serve(broker_settings, settings, model, engine)


if __name__ == "__main__":
    main(sys.argv[1:])
