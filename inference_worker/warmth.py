"""Sentences of our own for the engine: to warm it up before the first request, and to see whether
it still works after a failure."""

from time import perf_counter

from inference_worker.engine.protocol import Engine, Finished, Sentence
from inference_worker.tokens import Vocabulary

WARM_UP_TEXT = "The first sentence of the day takes longer than all that come after it."
WARM_UP_SENTENCES = 8
MOST_STEPS = 10_000  # more than any engine needs for a few sentences


def warm_up(engine: Engine, vocabulary: Vocabulary) -> float:
    """Runs a sentence, then a small batch; returns how long the slowest step of it took."""
    _run(engine, vocabulary, 1)
    return _run(engine, vocabulary, min(WARM_UP_SENTENCES, engine.slots))


def probe(engine: Engine, vocabulary: Vocabulary) -> None:
    """Raises whatever the engine raises on a sentence that it translated when it was warmed up."""
    _run(engine, vocabulary, 1)


def _run(engine: Engine, vocabulary: Vocabulary, count: int) -> float:
    source, target = vocabulary.languages[0], vocabulary.languages[-1]
    ids = vocabulary.encode(WARM_UP_TEXT, source).ids
    language = vocabulary.language(target)
    # Keys of the loop start at 1.
    engine.admit([Sentence(-key, ids, language) for key in range(count)])
    slowest_s = 0.0
    finished: list[Finished] = []
    for _ in range(MOST_STEPS):
        began_s = perf_counter()
        finished += engine.step()
        slowest_s = max(slowest_s, perf_counter() - began_s)
        if len(finished) == count:
            return slowest_s
    raise RuntimeError(f"the engine did not finish {count} sentences in {MOST_STEPS} steps")
