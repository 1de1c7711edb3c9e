"""What is refused before any route sees it: heads larger than they may be, and requests beyond
those that may be in flight. Probes and metrics are always let through."""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.connections import MAX_HEAD_BYTES, head_too_large
from api.problems import Problem

ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
RETRY_S = 1


class Gate:
    """ASGI middleware; raises a 431 or 503 Problem."""

    def __init__(self, app: ASGIApp, most_in_flight: int) -> None:
        self._app = app
        self._most_in_flight = most_in_flight
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = sum(len(name) + len(value) for name, value in scope["headers"])
        if head + len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_HEAD_BYTES:
            raise head_too_large()
        if scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._most_in_flight:
            raise Problem(
                503,
                "too_many_requests",
                f"This process answers {self._most_in_flight:,} requests already. Try again.",
                headers={"Retry-After": str(RETRY_S)},
            )
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
