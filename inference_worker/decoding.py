"""The middle stage of a worker: admit, step, settle. It has the process's main thread and the
engine, and speaks to nobody who might keep it waiting."""

import logging
from time import perf_counter

from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Engine, Finished
from inference_worker.hang import Watchdog
from inference_worker.holdings import Holdings
from inference_worker.outtake import Outtake, Translated
from inference_worker.rate import Rate
from inference_worker.roster import Roster
from inference_worker.warmth import probe

log = logging.getLogger(__name__)

MOST_NAMED = 16  # requests in a line of the log


class EngineBroken(Exception):
    """The engine fails on a sentence that it translated when it was started."""


class Decoding:
    """An engine between a roster and an outtake, turned over by ``turn``."""

    def __init__(
        self,
        engine: Engine,
        model: LanguageModel,
        watchdog: Watchdog,
        roster: Roster,
        holdings: Holdings,
        outtake: Outtake,
        rate: Rate,
    ) -> None:
        self._engine = engine
        self._model = model
        self._watchdog = watchdog
        self._roster = roster
        self._holdings = holdings
        self._outtake = outtake
        self._rate = rate

    def turn(self, wait_s: float) -> None:
        """Admits what waits and runs one step; without any work waits for it up to ``wait_s``.

        Raises EngineBroken, and RuntimeError if nobody renews the leases any more.
        """
        self._holdings.check()
        if gone := self._roster.gone():
            self._engine.drop(gone)
        # Who ends the process must not take along what was translated before and is still on its
        # way to Redis: for a suspect that was alone with the engine it would be the last chance.
        if self._roster.about_to_try and not self._outtake.all_written(wait_s):
            return
        admitted = self._roster.admit(self._engine.free)
        if not self._roster.inside:
            self._roster.wait_for_work(wait_s)
            return
        began_s = perf_counter()
        for unit in admitted:
            for spot in unit.spots:
                if spot.draft.admitted_s is None:
                    spot.draft.admitted_s = began_s
        self._rate.began(began_s)
        try:
            with self._watchdog:
                if admitted:
                    self._engine.admit([unit.sentence for unit in admitted])
                finished = self._engine.step()
        except Exception:
            self._recover()
            return
        finally:
            ended_s = perf_counter()
            self._rate.ended(ended_s)
        if finished:
            self._settle(finished, ended_s)

    def _settle(self, finished: list[Finished], ended_s: float) -> None:
        units = self._roster.finish([sentence.key for sentence in finished])
        self._outtake.translated(
            [
                Translated(unit, sentence.hypotheses, ended_s)
                for unit, sentence in zip(units, finished, strict=True)
                if unit is not None
            ]
        )

    def _recover(self) -> None:
        """After a failed step: narrows the sentences inside down to the guilty one."""
        units = list(self._roster.inside.values())
        requests = {spot.draft.delivery.record.request for unit in units for spot in unit.spots}
        log.exception(
            "a step over %d sentences failed, of requests %s",
            *(len(units), ", ".join(sorted(requests)[:MOST_NAMED])),
        )
        self._engine.reset()
        guilty = self._roster.bisect()
        if guilty is None:
            return
        try:
            with self._watchdog:
                probe(self._engine, self._model.vocabulary)
        except Exception as error:
            # The sentence need not be at fault; a broken engine would fail record after record.
            raise EngineBroken("the engine fails on what it translated before") from error
        if guilty.case.first is not None:  # a second try: no translation of it, but there is one
            self._outtake.translated([Translated(guilty, (), perf_counter())])
            return
        self._outtake.give_up(guilty, "The model failed on this text.")
