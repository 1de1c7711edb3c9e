"""What a worker goes through between its start and its first read."""

import os
import signal
import threading
from pathlib import Path

import pytest

from broker.keys import Keys
from broker.settings import BrokerSettings
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Sentence
from inference_worker.serve import serve
from inference_worker.settings import WorkerSettings
from inference_worker.tokens import Vocabulary
from tests.inference_worker.engines import Echo
from tests.redis_server import RedisServer, wait_until

SMALL = Path(__file__).parents[2] / "models" / "small"


def test_redis_may_go_away_while_the_engine_warms_up(
    redis_server: RedisServer,
    broker_settings: BrokerSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = threading.Event()

    def take_away(inside: list[Sentence]) -> None:
        if not gone.is_set():
            redis_server.kill()
            gone.set()

    def bring_back_and_stop() -> None:
        gone.wait(60)
        try:
            wait_until(lambda: "waiting for Redis" in caplog.text, description="the worker waits")
            redis_server.start()
            load = Keys("0").load()
            wait_until(
                lambda: redis_server.client.hexists(load, "workers:small"),
                description="the worker reports",
            )
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    vocabulary = Vocabulary(SMALL)
    model = LanguageModel("small", "echo", vocabulary, 128, max_length=200)
    helper = threading.Thread(target=bring_back_and_stop)
    helper.start()
    serve(broker_settings, WorkerSettings(grace_s=1.0), model, Echo(fault=take_away))
    helper.join()
    assert redis_server.client.hget(Keys("0").model("small"), "revision") == b"echo"
