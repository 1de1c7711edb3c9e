"""What every request gets, whatever its route: an X-Request-Id, a line in the log, its metrics, and
an answer even when the code below makes a mistake. No line ever holds text, query or body."""

import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.parameters import sound_request_id
from api.problems import problem_of
from broker import logs

log = logging.getLogger("dragoman.api.access")

WORK = "dragoman.work"  # where a route notes the id under which the other tiers log its work
OTHER = "other"  # the route of whatever matched none; keeps the label bounded


class Access:
    """ASGI middleware around everything else. ``routes`` maps endpoints to path templates."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: Mapping[Any, str], log_requests: bool
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode("latin-1")
        if not sound_request_id(request_id):
            request_id = secrets.token_hex(8)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        self._metrics.in_flight.inc()
        logs.request_id.set(request_id)  # of this request's task, to its end
        try:
            await self._app(scope, receive, send_named)
        except Exception as error:
            if status:
                raise
            await problem_of(error).response()(scope, receive, send_named)
        finally:
            self._metrics.in_flight.dec()
            self._note(scope, status, time.perf_counter() - began, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = self._routes.get(scope.get("endpoint"), OTHER)
        self._metrics.observe(scope["method"], route, status, seconds)
        if self._log_requests:
            caller = scope.get("state", {}).get("caller")
            log.info(
                "%s %s %d %.1f ms request=%s tenant=%s work=%s",
                scope["method"],
                route,
                status,
                seconds * 1000,
                request_id,
                caller.tenant if caller else "-",
                scope.get(WORK, "-"),
            )
