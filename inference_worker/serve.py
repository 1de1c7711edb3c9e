"""A worker process from the first connection to the last: wait for Redis, warm up, announce, turn
the stages, drain. Any engine can be served; tests and benchmarks bring their own."""

import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from broker.consumer import Consumer
from broker.errors import BrokerError, BrokerUnavailable
from broker.leases import Leases
from broker.memory import Memory
from broker.settings import BrokerSettings
from broker.wire import ModelEntry
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Engine
from inference_worker.hang import Watchdog
from inference_worker.memory import SentenceMemory
from inference_worker.settings import WorkerSettings
from inference_worker.stages import Stages
from inference_worker.warmth import warm_up
from inference_worker.worker import Worker

log = logging.getLogger(__name__)

Result = TypeVar("Result")

RECLAIMS_PER_LEASE = 4
CONNECT_RETRY_S = 0.5
CONNECT_LOG_S = 5.0
LEAST_GRACE_S = 1.0  # to hand back what is held


class Stopping:
    """Counts the requests to stop: the first drains, a second one hands back at once."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.asked += 1


def serve(
    broker_settings: BrokerSettings,
    settings: WorkerSettings,
    model: LanguageModel,
    engine: Engine,
    watchdog: Watchdog | None = None,
) -> None:
    """Serves ``model`` with ``engine`` until SIGTERM or SIGINT.

    ``watchdog`` is the one whose ``pulse`` the engine calls, if it does. Raises BrokerError when
    Redis cannot be used, EngineBroken when the engine cannot.
    """
    watchdog = watchdog or Watchdog(settings.hang_s)
    with _signals() as stopping:
        consumer = patiently(
            lambda: _consumer(broker_settings, model.name),
            settings.connect_s,
            lambda: stopping.asked > 0,
        )
        if consumer is None:
            return
        store = Memory(broker_settings) if broker_settings.memory else None
        try:
            watchdog.allow(warm_up(engine, model.vocabulary))
            patiently(
                lambda: _announce(consumer, model), settings.connect_s, lambda: stopping.asked > 0
            )
            leases = Leases(consumer, watchdog.limit_s, _die)
            watchdog.listener = leases.progress
            worker = Worker(
                consumer,
                leases,
                engine,
                model,
                watchdog,
                SentenceMemory(store, model) if store else None,
                heartbeat_s=broker_settings.heartbeat_s,
                reclaim_s=broker_settings.lease_s / RECLAIMS_PER_LEASE,
                started_ms=int(time.time() * 1000),
            )
            log.info(
                "dragoman-worker ready: model %s (%s) on %s, engine %s, %d slots",
                *(model.name, model.revision, engine.device, engine.name, engine.slots),
            )
            _turn(worker, consumer, leases, settings.grace_s, stopping)
        finally:
            with suppress(BrokerError):
                consumer.retire()
            consumer.close()
            if store:
                store.close()


def patiently(
    attempt: Callable[[], Result], patience_s: float, stopping: Callable[[], bool] = lambda: False
) -> Result | None:
    """What ``attempt`` returns once Redis answers; None if the process is told to stop meanwhile.

    Raises BrokerUnavailable when the patience is over.
    """
    began_s, logged_s = time.monotonic(), -math.inf
    while not stopping():
        try:
            return attempt()
        except BrokerUnavailable as error:
            now_s = time.monotonic()
            if now_s - began_s >= patience_s:
                raise
            if now_s - logged_s >= CONNECT_LOG_S:
                log.warning("waiting for Redis: %s", error)
                logged_s = now_s
            time.sleep(CONNECT_RETRY_S)
    return None


def _consumer(settings: BrokerSettings, model: str) -> Consumer:
    consumer = Consumer(settings, model)
    consumer.prepare()
    return consumer


def _announce(consumer: Consumer, model: LanguageModel) -> None:
    consumer.announce(
        ModelEntry(
            name=model.name,
            revision=model.revision,
            languages=list(model.vocabulary.languages),
            max_source_tokens=model.max_source_tokens,
        )
    )


def _turn(
    worker: Worker, consumer: Consumer, leases: Leases, grace_s: float, stopping: Stopping
) -> None:
    """Turns the stages until told to stop and drained, or until the grace is over."""
    seen, end_s = 0, math.inf
    consumer.give_up = lambda: time.monotonic() >= end_s
    leases.start()
    try:
        with Stages(worker, leases) as stages:
            while not worker.finished and time.monotonic() < end_s:
                if stopping.asked > seen:
                    left_s = grace_s if seen == 0 else 0.0
                    seen = stopping.asked
                    end_s = time.monotonic() + max(left_s, LEAST_GRACE_S)
                    log.info("stopping: no more work is read")
                    worker.drain(time.monotonic(), left_s)
                stages.decode()
    finally:
        leases.stop()
    log.info("dragoman-worker stopped")


def _die(reason: str) -> None:
    """Ends the process at once: its records must move on to a worker that can renew its leases."""
    log.critical("%s", reason)
    os._exit(1)


@contextmanager
def _signals() -> Iterator[Stopping]:
    stopping = Stopping()
    before = {number: signal.signal(number, stopping) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
