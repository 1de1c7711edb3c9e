"""The short way to the routes that everything waits for. FastAPI's own way leads through an exit
stack, two layers of exception handlers and the list of routes, which cost a small request a tenth
of its processor time and bring it nothing."""

from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.openapi import Endpoint
from api.problems import HANDLED, hung_up, problem_of

Direct = Mapping[tuple[str, str], Endpoint]  # by method and path


class Shortcut:
    """ASGI middleware, the innermost: answers the requests whose method and path are in ``direct``
    as the routes would, and leaves the others to them."""

    def __init__(self, app: ASGIApp, direct: Direct) -> None:
        self._app = app
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = None
        if scope["type"] == "http":
            endpoint = self._direct.get((scope["method"], scope["path"]))
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        scope["endpoint"], scope["path_params"] = endpoint, {}
        try:
            response = await endpoint(Request(scope, receive, send))
        except HANDLED as error:
            response = problem_of(error).response()
        except ClientDisconnect:
            response = hung_up()
        await response(scope, receive, send)
