"""``dragoman-documents``: translates the documents that the API has taken."""

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import redis
from rq.exceptions import StopRequested

from broker import functions, logs
from broker.connection import reaching_redis
from broker.document_queue import TASK, connect_queue
from broker.document_settings import DocumentSettings
from broker.errors import BrokerError, BrokerUnavailable
from broker.options import parse
from broker.settings import BrokerSettings
from broker.stopping import stop_at_once
from document_worker.settings import DocumentWorkerSettings
from document_worker.translation import Translator
from document_worker.worker import DocumentWorker

PROGRAM = "dragoman-documents"
RETRY_S = 0.5

log = logging.getLogger("dragoman.documents")
Answer = TypeVar("Answer")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT: 0 then, 1 for an error, 2 for bad usage."""
    broker, shared, settings = parse(
        [BrokerSettings, DocumentSettings, DocumentWorkerSettings],
        sys.argv[1:] if argv is None else argv,
        os.environ,
        program=PROGRAM,
        description="Translates the documents that the API has taken.",
    )
    logs.configure(settings.log_level)
    stop_at_once()
    try:
        _awaited(lambda: functions.init(broker), settings.connect_s)
        connection = connect_queue(broker, shared)
        _awaited(lambda: _ping(connection), settings.connect_s)
    except BrokerError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    tasks = {TASK: Translator(broker, shared, settings)}
    while True:
        worker = DocumentWorker(connect_queue(broker, shared), tasks, settings.document_lease_s)
        try:
            worker.work(logging_level=None)
        except (redis.RedisError, OSError) as error:
            log.warning("%s; starting again", error)
        except StopRequested:
            return 0
        if worker.stopping:
            return 0
        time.sleep(RETRY_S)


def _ping(connection: redis.Redis) -> None:
    with reaching_redis():
        connection.ping()


def _awaited(call: Callable[[], Answer], patience_s: float) -> Answer:
    """The call's answer; BrokerUnavailable only once patience has run out."""
    end = time.monotonic() + patience_s
    told = False
    while True:
        try:
            return call()
        except BrokerUnavailable as error:
            if time.monotonic() >= end:
                raise
            if not told:
                log.warning("%s; waiting for it", error)
                told = True
            time.sleep(RETRY_S)


if __name__ == "__main__":
    sys.exit(main())
