"""Replicas: the engine that waits, and a small run of everything on a real Valkey."""

import pytest
import uvloop

from benchmarks import load, replicas
from benchmarks.paced import PacedEngine
from inference_worker.engine.protocol import Sentence


def test_the_paced_engine_gives_everything_back_after_one_step() -> None:
    engine = PacedEngine(slots=4, batch_s=0.0)
    engine.admit([Sentence(key, (5, 10 + key, 2), 7) for key in range(3)])
    assert engine.free == 1
    engine.drop([1])
    finished = engine.step()
    assert [(one.key, one.hypotheses[0].tokens) for one in finished] == [(0, (10,)), (2, (12,))]
    assert engine.free == 4


@pytest.mark.slow
def test_a_small_run() -> None:
    """Two workers, two API processes: everything answered, and accounted for by tier."""
    with replicas.stack(workers=2, api_processes=2, slots=16, batch_s=0.01) as service:
        seconds, answers, spent = replicas.drained(service, 96)
        assert len(answers) == 6
        assert not any(answer.failure for answer in answers)
        assert seconds > 0
        assert set(spent.by_tier) == {"api", "workers", "redis"}
        assert len(service.servers()["api"].processes()) >= 3  # its supervisor and two processes
        where = load.address(service.url)
        poll = uvloop.run(replicas.finished_job(where))
        row = replicas.pressed(service, poll, seconds=0.3).row(2)
        assert len(row) == len(replicas.API_HEADS)


def test_what_would_not_end_is_refused() -> None:
    with pytest.raises(SystemExit):
        replicas.parsed(["--records", "100000", "--batch-s", "10"])
