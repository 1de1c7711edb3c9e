"""The web page at ``/`` and its assets, packaged with this module: no build step, no CDN."""

import hashlib
from importlib.resources import files
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from api.problems import Problem

TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SECURITY: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none';"
    " form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Asset:
    """A file of ours as an answer, with the tag by which a browser asks whether it changed."""

    def __init__(self, name: str, content: bytes) -> None:
        self._content = content
        self._tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        self._type = TYPES["." + name.rpartition(".")[2]]

    def response(self, headers: Headers) -> Response:
        told = SECURITY | {"ETag": self._tag, "Cache-Control": "no-cache"}
        if headers.get("if-none-match") == self._tag:
            return Response(status_code=304, headers=told)
        return Response(self._content, headers=told, media_type=self._type)


ASSETS: Final = {
    file.name: Asset(file.name, file.read_bytes())
    for file in files("api").joinpath("assets").iterdir()
    if "." + file.name.rpartition(".")[2] in TYPES
}


async def show_page(request: Request) -> Response:
    """The page."""
    return ASSETS["index.html"].response(request.headers)


async def show_asset(request: Request) -> Response:
    """What the page is made of."""
    asset = ASSETS.get(request.path_params["name"])
    if asset is None:
        raise Problem(404, "unknown_path", "There is no such asset.")
    return asset.response(request.headers)
