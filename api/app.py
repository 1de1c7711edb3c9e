"""Puts the HTTP tier together: routes, middleware, exception handlers, and the broker's parties
that live as long as the app does."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api import documents, events, health, jobs, languages, translation
from api.access import Access
from api.body import BodyCap
from api.gate import Gate
from api.metrics import Metrics
from api.openapi import Endpoint, Operation, document, released
from api.page import show_asset, show_page
from api.problems import HANDLED, answer
from api.service import Catalogue, Service
from api.settings import ApiSettings
from broker.documents import MAX_DOCUMENT_BYTES, DocumentSettings
from broker.errors import BrokerError
from broker.keys import model_name
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.waiter import Waiter

log = logging.getLogger("dragoman.api")

OPERATIONS: tuple[Operation, ...] = (
    *translation.OPERATIONS,
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *documents.OPERATIONS,
    *languages.OPERATIONS,
    *health.OPERATIONS,
)
PREPARE_AGAIN_S = 1.0
FORM_BYTES = 128 * 1024  # what a form may add to the document in it


def create_app(
    broker_settings: BrokerSettings,
    settings: ApiSettings,
    metrics_directory: str = "",
    document_settings: DocumentSettings = DocumentSettings(),  # noqa: B008 - frozen
) -> FastAPI:
    """The app of one API process. ``metrics_directory`` is where several processes add up their
    metrics; without one they are this process's own."""
    app = FastAPIOffline(
        "/docs",
        None,
        title="Dragoman",
        version=released(),
        lifespan=_lifespan,
        static_url="/docs/assets",
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
        redirect_slashes=False,
    )
    app.openapi = _Document(OPERATIONS)  # type: ignore[method-assign]
    app.state.service = _service(broker_settings, settings, Metrics(metrics_directory))
    app.state.shelf = documents.shelf(broker_settings, document_settings)
    _add_routes(app)
    for kind in HANDLED:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(ClientDisconnect, _hung_up)
    app.add_middleware(
        BodyCap,
        max_body_bytes=settings.max_body_bytes,
        body_s=settings.body_timeout_s,
        exceptions={"/documents": MAX_DOCUMENT_BYTES + FORM_BYTES},
    )
    app.add_middleware(Gate, most_in_flight=settings.max_connections)
    app.add_middleware(
        Access,
        metrics=app.state.service.metrics,
        routes=_templates(app),
        log_requests=settings.access_log,
    )
    return app


async def _hung_up(request: Request, error: Exception) -> Response:
    """The caller went away while it was sending: nobody's mistake, and nobody reads this."""
    return Response(status_code=translation.CLIENT_CLOSED_REQUEST)


class _Document:
    """FastAPI's ``openapi()`` for routes that FastAPI does not describe."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._document = document(operations)

    def __call__(self) -> dict[str, Any]:
        return self._document


def _service(broker_settings: BrokerSettings, settings: ApiSettings, metrics: Metrics) -> Service:
    model = model_name(settings.model)
    producer = Producer(broker_settings, process=secrets.token_hex(8))
    return Service(
        settings=settings,
        model=model,
        producer=producer,
        waiter=Waiter(producer),
        catalogue=Catalogue(producer, model),
        metrics=metrics,
    )


def _add_routes(app: FastAPI) -> None:
    """One route per path, so that a 405 tells all of its methods; ours before those of /docs,
    because routes are tried in turn."""
    documentation = app.router.routes[:]
    app.router.routes.clear()
    for path, operations in groupby(OPERATIONS, key=lambda operation: operation.path):
        endpoints = {operation.method: operation.endpoint for operation in operations}
        app.add_route(path, _by_method(endpoints), methods=list(endpoints))
    app.add_route("/", show_page)
    app.add_route("/assets/{name}", show_asset)
    app.router.routes.extend(documentation)


def _by_method(endpoints: dict[str, Endpoint]) -> Endpoint:
    async def dispatch(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await endpoints[method](request)

    return dispatch


def _templates(app: FastAPI) -> dict[Any, str]:
    """Path templates by endpoint, for the metrics' labels."""
    return {
        getattr(route, "endpoint", getattr(route, "app", None)): getattr(route, "path", "")
        for route in app.routes
    }


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Starts even while Redis is away, and says so."""
    service: Service = app.state.service
    preparing: asyncio.Task[None] | None = None
    try:
        await service.producer.prepare()
    except BrokerError as error:
        log.warning("%s; requests are answered 503 until that is over", error)
        preparing = asyncio.ensure_future(_prepare(service.producer))
    await service.waiter.start()
    try:
        yield
    finally:
        if preparing:
            preparing.cancel()
            with suppress(asyncio.CancelledError):
                await preparing
        await service.waiter.stop()
        await service.producer.close()
        await app.state.shelf.close()


async def _prepare(producer: Producer) -> None:
    while True:
        await asyncio.sleep(PREPARE_AGAIN_S)
        try:
            await producer.prepare()
        except BrokerError as error:
            log.debug("%s", error)
            continue
        log.info("Redis can be used")
        return
