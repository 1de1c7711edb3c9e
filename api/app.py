"""Puts the HTTP tier together: routes, middleware, exception handlers, and the broker's parties
that live as long as the app does."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api import documents, events, health, jobs, languages, translation, usage
from api.access import Access
from api.body import BodyCap
from api.callers import Callers
from api.draining import Farewell
from api.gate import Gate
from api.metrics import Metrics
from api.openapi import Endpoint, Operation, document, released
from api.page import show_asset, show_page
from api.problems import HANDLED, answer, hung_up
from api.service import Catalogue, Service, service_of
from api.settings import ApiSettings
from api.shelf import shelf
from api.shortcut import Shortcut
from broker.document_settings import DocumentSettings
from broker.documents import MAX_DOCUMENT_BYTES
from broker.errors import BrokerError
from broker.keys import model_name
from broker.meter import Meter
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.tenants import KeySettings, read_secret
from broker.waiter import Waiter

log = logging.getLogger("dragoman.api")

OPERATIONS: tuple[Operation, ...] = (
    *translation.OPERATIONS,
    *jobs.OPERATIONS,
    *events.OPERATIONS,
    *documents.OPERATIONS,
    *languages.OPERATIONS,
    *usage.OPERATIONS,
    *health.OPERATIONS,
)
HOT = (("POST", "/translation"), ("POST", "/jobs"))  # what takes the short way
PREPARE_AGAIN_S = 1.0
FORM_BYTES = 128 * 1024  # what a form may add to the document in it


def create_app(
    broker_settings: BrokerSettings,
    settings: ApiSettings,
    metrics_directory: str = "",
    document_settings: DocumentSettings = DocumentSettings(),  # noqa: B008 - frozen
    key_settings: KeySettings = KeySettings(),  # noqa: B008 - frozen
) -> FastAPI:
    """The app of one API process. ``metrics_directory`` is where several processes add up their
    metrics; without one they are this process's own. Raises BrokerMisconfigured when the secret of
    the API keys cannot be read."""
    secret = read_secret(key_settings.key_secret_file) if key_settings.key_secret_file else None
    operations = [_opened(operation, settings) for operation in OPERATIONS]
    app = FastAPIOffline(
        "/docs",
        None,
        title="Dragoman",
        version=released(),
        lifespan=_lifespan,
        static_url="/docs/assets",
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asked for at each request
    )
    app.openapi = _Document(operations, keys=secret is not None)  # type: ignore[method-assign]
    app.state.service = _service(broker_settings, settings, Metrics(metrics_directory), secret)
    app.state.shelf = shelf(broker_settings, document_settings)
    endpoints = _add_routes(app, operations)
    for kind in HANDLED:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(ClientDisconnect, _left)
    # From the innermost to the outermost.
    app.add_middleware(Shortcut, direct={at: endpoints[at] for at in HOT})
    app.add_middleware(
        BodyCap,
        max_body_bytes=settings.max_body_bytes,
        body_s=settings.body_timeout_s,
        exceptions={"/documents": MAX_DOCUMENT_BYTES + FORM_BYTES},
    )
    app.add_middleware(Gate, most_in_flight=settings.max_connections)
    app.add_middleware(Farewell, draining=app.state.service.draining)
    app.add_middleware(
        Access,
        metrics=app.state.service.metrics,
        routes=_templates(app),
        log_requests=settings.access_log,
    )
    return app


async def _left(request: Request, error: Exception) -> Response:
    """The caller went away while it was sending."""
    return hung_up()


class _Document:
    """FastAPI's ``openapi()`` for routes that FastAPI does not describe."""

    def __init__(self, operations: Iterable[Operation], keys: bool) -> None:
        self._document = document(operations, keys)

    def __call__(self) -> dict[str, Any]:
        return self._document


def _opened(operation: Operation, settings: ApiSettings) -> Operation:
    """The operation with the operator's word on whether it answers without a key."""
    if operation.endpoint is health.metrics:
        return replace(operation, open=settings.metrics_open)
    return operation


def _service(
    broker_settings: BrokerSettings, settings: ApiSettings, metrics: Metrics, secret: bytes | None
) -> Service:
    model = model_name(settings.model)
    producer = Producer(broker_settings, process=secrets.token_hex(8))
    return Service(
        settings=settings,
        model=model,
        producer=producer,
        waiter=Waiter(producer),
        catalogue=Catalogue(producer, model),
        callers=Callers(Meter(broker_settings), secret),
        metrics=metrics,
    )


def _add_routes(app: FastAPI, operations: Iterable[Operation]) -> dict[tuple[str, str], Endpoint]:
    """One route per path, so that a 405 tells all of its methods; ours before those of /docs,
    because routes are tried in turn. Returns what the routes call by method and path."""
    endpoints: dict[tuple[str, str], Endpoint] = {}
    documentation = app.router.routes[:]
    app.router.routes.clear()
    for path, group in groupby(operations, key=lambda operation: operation.path):
        methods = {operation.method: operation for operation in group}
        endpoint = _by_method(methods)
        app.add_route(path, endpoint, methods=list(methods))
        endpoints.update(((method, path), endpoint) for method in methods)
    app.add_route("/", show_page)
    app.add_route("/assets/{name}", show_asset)
    app.router.routes.extend(documentation)
    return endpoints


def _by_method(operations: dict[str, Operation]) -> Endpoint:
    """Every request passes here, and the caller is known before anything else is done for it."""

    async def dispatch(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        if not operation.open:
            request.state.caller = await service_of(request).callers.identify(request)
        return await operation.endpoint(request)

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
        await service.callers.close()
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
