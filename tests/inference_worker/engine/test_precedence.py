"""Tests of ``inference_worker.engine.precedence``: nothing waits for ever."""

from inference_worker.engine.precedence import Precedence
from inference_worker.engine.protocol import Sentence


def test_every_other_batch_begins_with_urgent_work_and_the_others_with_the_oldest() -> None:
    waiting = [Sentence(key, (1, 2), 3, urgent=key in (4, 6)) for key in range(8)]
    precedence = Precedence()
    begun = []
    for _ in range(6):
        begun.append(precedence.first(waiting))
        waiting.remove(begun[-1])
    assert [sentence.key for sentence in begun] == [4, 0, 6, 1, 2, 3]
