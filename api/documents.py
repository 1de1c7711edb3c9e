"""Documents: upload, follow, download, delete. Any API process answers for any document; the work
is done by the document workers, which take it from RQ's queue."""

import asyncio
import logging
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from api.access import WORK
from api.callers import caller_of
from api.document_schemas import DocumentFlaw, DocumentJob
from api.openapi import JSON, Answer, Operation, Parameter, problem
from api.parameters import REQUEST_ID
from api.problems import Problem
from api.results import moment
from api.service import service_of
from api.shelf import shelf_of
from api.uploads import examine, form_of
from broker.documents import OPEN, Document, Flaw
from broker.errors import BrokerError
from document_formats.kinds import BY_NAME

log = logging.getLogger("dragoman.api")

FRESH = {"Cache-Control": "no-store"}
RETRY_FULL_S = 30
RETRY_OPEN_S = 2


def unknown_document() -> Problem:
    """The one answer for unknown, malformed and foreign document ids."""
    return Problem(
        404,
        "unknown_document",
        "There is no document with this id. Documents are kept for a limited time after they end.",
    )


async def submit_document(request: Request) -> Response:
    """Stores an upload and answers 202 with its Location."""
    service, shelf, caller = service_of(request), shelf_of(request), caller_of(request)
    entry = await service.catalogue.entry()
    async with form_of(request, entry) as form, shelf.examining:
        body = await form.file.read()
        upload, total = await examine(form, body, service.model, shelf.bounds)
        await service.callers.charge_text(caller, upload.size)
        upload = msgspec.structs.replace(
            upload,
            weight=caller.quota.weight,
            tenant_cap=caller.quota.outstanding_chars or None,
        )
        if await asyncio.to_thread(shelf.waiting) >= shelf.settings.max_queued_documents:
            raise Problem(
                503,
                "overloaded",
                "More documents are waiting than the service accepts. Try again later.",
                headers={"Retry-After": str(RETRY_FULL_S)},
            )
        request.scope[WORK] = document_id = shelf.documents.new_id()
        await shelf.documents.create(caller.tenant, document_id, upload, body, total)
    try:
        await asyncio.to_thread(shelf.enqueue, caller.tenant, document_id)
    except BrokerError:
        await shelf.documents.delete(caller.tenant, document_id)
        raise
    document = await _read(request, document_id)
    headers = {"Location": _location(document_id), **FRESH}
    return Response(msgspec.json.encode(_job(document)), 202, headers, JSON)


async def read_document(request: Request) -> Response:
    """The document as it stands."""
    document = await _read(request, request.path_params["id"])
    return Response(msgspec.json.encode(_job(document)), 200, FRESH, JSON)


async def read_document_result(request: Request) -> Response:
    """The translated document as a file."""
    document = await _read(request, request.path_params["id"])
    body = await shelf_of(request).documents.result(document.tenant, document.id)
    if document.state in OPEN:
        raise Problem(
            409,
            "not_ready",
            f"The document is not ready. GET {_location(document.id)} tells how far it is.",
            headers={"Retry-After": str(RETRY_OPEN_S)},
        )
    if body is None:
        detail = "The document ended without a result; its state says why."
        raise Problem(409, "no_result", detail)
    name, encoding = _result_name(document), _encoding(document)
    plain = "".join(char if char.isascii() and char not in '"\\%' else "_" for char in name)
    media_type = BY_NAME[document.upload.kind].media_types[0]
    headers = {
        **FRESH,
        "Content-Type": f"{media_type}; charset={encoding}",
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body, 200, headers)


async def delete_document(request: Request) -> Response:
    """Cancels an open document, drops an ended one."""
    service, shelf = service_of(request), shelf_of(request)
    document_id: str = request.path_params["id"]
    tenant = caller_of(request).tenant
    requests = await shelf.documents.cancel(tenant, document_id)
    if requests is None:
        if not await shelf.documents.delete(tenant, document_id):
            raise unknown_document()
        return Response(status_code=204)
    for submitted in requests:
        await service.producer.cancel(tenant, submitted)
    try:
        await asyncio.to_thread(shelf.dequeue, document_id)
    except BrokerError as error:
        log.warning("document %s stays queued though cancelled: %s", document_id, error)
    document = await _read(request, document_id)
    return Response(msgspec.json.encode(_job(document)), 200, FRESH, JSON)


async def _read(request: Request, document_id: str) -> Document:
    document = await shelf_of(request).documents.read(caller_of(request).tenant, document_id)
    if document is None:
        raise unknown_document()
    return document


def _location(document_id: str) -> str:
    return f"/documents/{document_id}"


def _job(document: Document) -> DocumentJob:
    ending, upload = document.ending, document.upload
    return DocumentJob(
        id=document.id,
        state=document.state,
        total=document.total,
        done=document.done,
        failed=ending.failed if ending else 0,
        filename=_result_name(document),
        format=upload.kind,
        encoding=_encoding(document),
        size=upload.size,
        source=upload.source,
        target=upload.target,
        created_at=moment(document.created_ms),
        deadline_at=moment(document.deadline_ms),
        expires_at=moment(document.expires_ms),
        result=f"{_location(document.id)}/result" if document.state == "done" else UNSET,
        error=_flaw(ending.error) if ending and ending.error else UNSET,
        report=[_flaw(flaw) for flaw in ending.flaws] if ending and ending.flaws else UNSET,
    )


def _flaw(flaw: Flaw) -> DocumentFlaw:
    return DocumentFlaw(flaw.code, flaw.detail, flaw.line or UNSET)


def _encoding(document: Document) -> str:
    return (document.ending and document.ending.encoding) or document.upload.encoding


def _result_name(document: Document) -> str:
    """``movie.srt`` in Japanese is ``movie.ja.srt``."""
    upload = document.upload
    path = PurePosixPath(upload.filename or f"document{BY_NAME[upload.kind].extensions[0]}")
    return f"{path.stem}.{upload.target}{path.suffix}"


class _UploadOperation(Operation):
    """An operation whose body is a form with a file."""

    def document(self) -> dict[str, Any]:
        described = super().document()
        properties = {
            "file": {"type": "string", "contentMediaType": "application/octet-stream"},
            "source": {"type": "string", "description": "A code from GET /languages."},
            "target": {"type": "string", "description": "A code from GET /languages."},
            "columns": {
                "type": "string",
                "description": "CSV: the columns to translate, separated by commas.",
            },
            "fields": {
                "type": "string",
                "description": "JSON Lines: the fields to translate, separated by commas; nested"
                " ones as outer.inner.",
            },
            "format": {
                "type": "string",
                "enum": list(BY_NAME),
                "description": "Where the file's name does not tell.",
            },
            "encoding": {
                "type": "string",
                "description": "Where it is neither UTF-8 nor told by a byte order mark.",
            },
        }
        schema = {
            "type": "object",
            "required": ["file", "source", "target"],
            "properties": properties,
        }
        described["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema}},
        }
        return described


DOCUMENT_ID = Parameter("id", "path", "As in the Location.", {"type": "string"})
_MISSING = problem(404, "No such document.")
_AWAY = problem(503, "Redis is away.", Retry_After="Seconds.")

OPERATIONS: tuple[Operation, ...] = (
    _UploadOperation(
        "POST",
        "/documents",
        submit_document,
        "Translate a document",
        "Takes plain text, SubRip, CSV (the `columns` you name) or JSON Lines (the `fields` you"
        " name), up to 10 MB, and answers at once. Layout, timings, keys, quoting and encoding stay"
        " as they are.",
        "Documents",
        parameters=(REQUEST_ID,),
        answers=(
            Answer(
                202,
                "Taken.",
                "DocumentJob",
                headers={"Location": "Where the document can be followed."},
            ),
            problem(400, "The body is not sound multipart/form-data."),
            problem(413, "The file is too large."),
            problem(415, "The body is no form, or the file's type is not supported."),
            problem(422, "A part does not fit, or the file is malformed; `line` says where."),
            problem(503, "Overloaded, or Redis is away.", Retry_After="Seconds."),
        ),
    ),
    Operation(
        "GET",
        "/documents/{id}",
        read_document,
        "Follow a document",
        "State, progress, and a report of the texts that could not be translated.",
        "Documents",
        parameters=(DOCUMENT_ID, REQUEST_ID),
        answers=(Answer(200, "The document as it stands.", "DocumentJob"), _MISSING, _AWAY),
    ),
    Operation(
        "DELETE",
        "/documents/{id}",
        delete_document,
        "Cancel or drop a document",
        "An open document is cancelled at once and its texts are dropped (200). One that has ended"
        " is dropped with its result (204).",
        "Documents",
        parameters=(DOCUMENT_ID, REQUEST_ID),
        answers=(Answer(200, "Cancelled.", "DocumentJob"), _MISSING, _AWAY),
    ),
    Operation(
        "GET",
        "/documents/{id}/result",
        read_document_result,
        "Download the result",
        "The translated document, named after the upload and the language.",
        "Documents",
        parameters=(DOCUMENT_ID, REQUEST_ID),
        answers=(
            Answer(
                200,
                "The file.",
                media_type="application/octet-stream",
                headers={"Content-Disposition": "The file's name."},
            ),
            _MISSING,
            problem(409, "The document is not ready, or ended without a result."),
            _AWAY,
        ),
    ),
)
