"""``dragoman-api``: the HTTP tier on one port, in one process or several."""

import logging
import math
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from api import logs
from api.process import STOP_SIGNALS, application
from api.settings import ApiSettings
from broker import functions
from broker.errors import BrokerError, BrokerUnavailable
from broker.options import parse
from broker.settings import BrokerSettings

log = logging.getLogger("dragoman.api")

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
KEEP_ALIVE_S = 75  # longer than common load balancers keep idle connections, so that they end them
STALLED_S = 30  # a process whose threads do not run for so long is replaced


@contextmanager
def _metrics_directory(processes: int) -> Iterator[str]:
    """Where processes add up their metrics: set in the environment, which prometheus_client reads
    when it loads in each process, and made anew because old counts would be added in."""
    if given := os.environ.get(METRICS_VARIABLE, ""):
        Path(given).mkdir(parents=True, exist_ok=True)
        yield given
    elif processes == 1:
        yield ""
    else:
        with tempfile.TemporaryDirectory(prefix="dragoman-metrics-") as directory:
            os.environ[METRICS_VARIABLE] = directory
            yield directory


def _listener(host: str, port: int) -> socket.socket:
    """A bound socket; the processes listen on it themselves, so that nobody is taken too early."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.set_inheritable(True)
    return listener


def serve(broker: BrokerSettings, settings: ApiSettings) -> int:
    """Runs until SIGTERM or SIGINT; the exit status."""
    try:
        listener = _listener(settings.host, settings.port)
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", settings.host, settings.port, error)
        return 1
    with listener, _metrics_directory(settings.processes) as directory:
        address = (settings.host, listener.getsockname()[1])
        config = uvicorn.Config(
            partial(application, broker, settings, directory, address),
            factory=True,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            workers=settings.processes,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.grace_s),
            timeout_worker_healthcheck=STALLED_S,
        )
        if settings.processes > 1:
            supervisor = Multiprocess(config, [listener])
            supervisor.run()
            failed = any(child.exitcode == STARTUP_FAILURE for child in supervisor.processes)
            return STARTUP_FAILURE if failed else 0
        uvicorn.Server(config).run([listener])
        return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    broker, settings = parse(
        [BrokerSettings, ApiSettings],
        sys.argv[1:] if argv is None else argv,
        os.environ,
        program="dragoman-api",
        description="Dragoman's HTTP tier: takes requests in and hands them to the broker.",
    )
    logs.configure(settings.log_level)
    try:
        functions.init(broker)
    except BrokerUnavailable:
        pass  # the app says so and waits for it
    except BrokerError as error:
        log.error("%s", error)
        return 2
    for number in STOP_SIGNALS:
        # uvicorn raises the signal again after a graceful stop, which is then an ordinary exit.
        signal.signal(number, _ignore)
    return serve(broker, settings)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which child processes would inherit."""


if __name__ == "__main__":
    sys.exit(main())
