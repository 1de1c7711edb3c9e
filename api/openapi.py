"""What an operation is, and the OpenAPI document made from all of them and the body structs.

Routes are Starlette's on the FastAPI app: FastAPI's own cost twice as much for each request (109
against 51 µs, measured) and would validate with pydantic what msgspec has decoded.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.problems import MEDIA_TYPE as PROBLEM
from api.schemas import components

JSON = "application/json"
DESCRIPTION = (
    "Translation between any two languages of an M2M100 model. Send records, get the same ids back"
    " with translated texts; or submit a job and follow it."
)

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Parameter:
    """A query parameter (``where`` is ``query``), header or part of the path."""

    name: str
    where: str
    description: str
    schema: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "in": self.where,
            "required": self.where == "path",
            "description": self.description,
            "schema": dict(self.schema),
        }


@dataclass(frozen=True)
class Answer:
    """A possible answer. ``schema`` names a body struct; ``headers`` maps names to descriptions."""

    status: int
    description: str
    schema: str = ""
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    example: Any = None

    def document(self) -> dict[str, Any]:
        media: dict[str, Any] = {"schema": reference(self.schema)}
        if self.example is not None:
            media["example"] = self.example
        described: dict[str, Any] = {"description": self.description}
        described["content"] = {self.media_type: media}
        if self.headers:
            described["headers"] = {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in self.headers.items()
            }
        return described


@dataclass(frozen=True)
class Operation:
    """A method on a path, what runs, and what to tell about it."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    description: str
    tag: str
    answers: tuple[Answer, ...]
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    examples: Mapping[str, Any] = field(default_factory=dict)
    open: bool = False  # answers without an API key

    def document(self) -> dict[str, Any]:
        keyed = () if self.open else KEY_ANSWERS
        answers = (*COMMON_ANSWERS, *keyed, *self.answers)
        described: dict[str, Any] = {
            "operationId": self.endpoint.__name__,
            "summary": self.summary,
            "description": self.description,
            "tags": [self.tag],
            "parameters": [parameter.document() for parameter in self.parameters],
            "responses": {str(answer.status): answer.document() for answer in answers},
        }
        if self.body:
            media: dict[str, Any] = {"schema": reference(self.body)}
            if self.examples:
                media["examples"] = {
                    name: {"value": value} for name, value in self.examples.items()
                }
            described["requestBody"] = {"required": True, "content": {JSON: media}}
        return described


def problem(status: int, description: str, **headers: str) -> Answer:
    """An answer in problem details."""
    return Answer(
        status,
        description,
        "ProblemDetails",
        PROBLEM,
        {name.replace("_", "-"): text for name, text in headers.items()},
    )


COMMON_ANSWERS = (
    problem(408, "The headers or the body did not come in time."),
    problem(431, "The request line and the headers are too large."),
)
KEY_ANSWERS = (
    problem(
        401,
        "Keys are asked for, and this one is missing, unknown or revoked.",
        WWW_Authenticate="The scheme.",
    ),
    problem(
        429,
        "A limit of the tenant is used up; `limit` says which.",
        Retry_After="Seconds.",
    ),
)
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def reference(schema: str) -> dict[str, Any]:
    """The JSON schema of a body struct; of plain text without one."""
    return {"$ref": f"#/components/schemas/{schema}"} if schema else {"type": "string"}


def released() -> str:
    """The version of the installed distribution; 0 in a checkout that is not installed."""
    try:
        return version("dragoman")
    except PackageNotFoundError:
        return "0"


def document(operations: Iterable[Operation], keys: bool) -> dict[str, Any]:
    """The OpenAPI document; ``keys`` says whether requests need one."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = operation.document()
        if keys:
            schemes: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]
            described["security"] = [] if operation.open else schemes
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "Dragoman", "version": released(), "description": DESCRIPTION},
        "paths": paths,
        "components": {"schemas": components(), "securitySchemes": SECURITY_SCHEMES},
    }
