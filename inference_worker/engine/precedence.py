"""Which sentence a batch begins with, in an engine that holds more sentences than a batch has."""

from collections.abc import Sequence

from inference_worker.engine.protocol import Sentence


class Precedence:
    """Every other batch begins with the urgent sentence that has waited longest, so that
    interactive work need not wait until all bulk work that is held is done; the others with
    whichever sentence has waited longest, so that none waits for ever."""

    def __init__(self) -> None:
        self._urgent = False

    def first(self, waiting: Sequence[Sentence]) -> Sentence:
        """The sentence to begin with. ``waiting`` is in the order of arrival. Raises ValueError if
        it is empty."""
        if not waiting:
            raise ValueError("no sentences to translate")
        self._urgent = not self._urgent
        urgent = (sentence for sentence in waiting if self._urgent and sentence.urgent)
        return next(urgent, waiting[0])
