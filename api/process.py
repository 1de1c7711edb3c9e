"""One API process under uvicorn: its socket, its app, the signals that drain it, and the line that
says it is ready. A module of its own because a spawned process cannot import ``__main__``."""

import asyncio
import logging
import math
import multiprocessing
import signal
import socket
from dataclasses import replace
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.connections import Connections, Patience, most_connections
from api.draining import stop_gently
from api.service import Service
from api.settings import ApiSettings
from broker import logs
from broker.document_settings import DocumentSettings
from broker.errors import BrokerError
from broker.settings import BrokerSettings
from broker.stopping import STOP_SIGNALS
from broker.tenants import KeySettings

log = logging.getLogger("dragoman.api")

KEEP_ALIVE_S = 75  # longer than common load balancers keep idle connections, so that they end them
LOOK_S = 0.1
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


def bind(host: str, port: int, *, shared: bool) -> socket.socket:
    """A bound socket; ``shared`` lets other processes bind the port as well. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def run(
    broker: BrokerSettings,
    settings: ApiSettings,
    documents: DocumentSettings,
    keys: KeySettings,
    directory: str,
    port: int,
) -> None:
    """Serves until SIGTERM or SIGINT; with ``settings.processes`` above 1, as one of several."""
    for number in STOP_SIGNALS:
        # uvicorn raises the signal again after a graceful stop, which is then an ordinary end.
        signal.signal(number, _ignore)
    most = most_connections(settings.max_connections)
    settings = replace(settings, max_connections=most)
    patience = Patience(settings.head_timeout_s, KEEP_ALIVE_S, most)
    config = uvicorn.Config(
        partial(application, broker, settings, documents, keys, directory, (settings.host, port)),
        factory=True,
        loop="uvloop",
        http=Connections(patience),  # type: ignore[arg-type]  # called as a class would be
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.grace_s - _drain_s(settings)),
    )
    with bind(settings.host, port, shared=settings.processes > 1) as listener:
        uvicorn.Server(config).run([listener])


def _drain_s(settings: ApiSettings) -> float:
    return min(settings.drain_s, settings.grace_s / 2)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which would be inherited."""


def application(
    broker: BrokerSettings,
    settings: ApiSettings,
    documents: DocumentSettings,
    keys: KeySettings,
    directory: str,
    address: tuple[str, int],
) -> FastAPI:
    """The app of one process; uvicorn calls this in the process, inside its event loop."""
    logs.configure(settings.log_level)
    app = create_app(broker, settings, directory, documents, keys)
    service: Service = app.state.service
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        stop_gently(number, service, settings.grace_s, _drain_s(settings))
    if parent := multiprocessing.parent_process():
        # Without its supervisor a process would hold the port for ever.
        loop.add_reader(parent.sentinel, _stop_orphan, loop, parent.sentinel)
    app.state.announcement = loop.create_task(_announce(service, address))
    return app


def _stop_orphan(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
    loop.remove_reader(sentinel)
    log.error("the supervising process is gone: stopping")
    signal.raise_signal(signal.SIGTERM)


async def _announce(service: Service, address: tuple[str, int]) -> None:
    """Says ready once the port takes connections and the broker can be used."""
    host, port = address
    while True:
        try:
            _, writer = await asyncio.open_connection(ANY_ADDRESS.get(host, host), port)
            writer.close()
            await service.producer.ready()
        except (OSError, BrokerError):
            await asyncio.sleep(LOOK_S)
            continue
        shown = f"[{host}]" if ":" in host else host
        log.info("dragoman-api ready: http://%s:%d", shown, port)
        return
