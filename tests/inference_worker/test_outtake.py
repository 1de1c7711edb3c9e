"""Tests of ``inference_worker.outtake``: what a turn takes, and what it leaves to the next."""

from collections.abc import Iterator

from broker.wire import Delivery
from inference_worker.draft import Draft, LanguageModel, prepared
from inference_worker.holdings import Holdings
from inference_worker.outtake import Outtake
from inference_worker.rate import Rate
from inference_worker.roster import Roster
from inference_worker.tokens import Vocabulary
from tests.inference_worker.parties import Broker, Held


class Busy(list[Draft]):
    """A batch; while it is being looked at, the engine ends another one."""

    def __init__(self, outtake: Outtake, first: Draft, *rest: Draft) -> None:
        super().__init__([first])
        self._outtake = outtake
        self._rest = rest

    def __iter__(self) -> Iterator[Draft]:
        if self._rest:
            self._outtake.done(Busy(self._outtake, *self._rest))
        return super().__iter__()


def test_results_are_written_however_fast_the_engine_is(vocabulary: Vocabulary) -> None:
    model = LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=200)
    broker, holdings = Broker(), Holdings(Held())
    outtake = Outtake(broker, Roster(8), holdings, model, Rate(), None)

    def ended(delivery: Delivery) -> Draft:
        draft = prepared(delivery, model, 1)  # has no sentence
        holdings.open(draft)
        return draft

    outtake.done(Busy(outtake, *map(ended, broker.add("1", "2", "3"))))
    for turns in (1, 2, 3):
        assert outtake.turn(0.0)
        assert len(broker.outcomes) == turns
    assert outtake.all_written(0.0)
