"""From a multipart upload to a checked document, or to a Problem that names the part to mend."""

import csv
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from api.languages import check_pair
from api.parameters import refuse_compressed
from api.problems import Problem
from broker.documents import MAX_DOCUMENT_BYTES, Upload
from broker.wire import ModelEntry
from document_formats import confinement
from document_formats.confinement import Bounds
from document_formats.kinds import BY_NAME, KINDS, Kind, recognised
from document_formats.spans import Malformed

MAX_PARTS = 64
MAX_PART_BYTES = 64 * 1024  # of a part that is no file
MAX_NAMES = 64
MAX_FILENAME_CHARS = 200


@dataclass(frozen=True)
class Form:
    """The parts of an upload, the file still unread."""

    file: UploadFile
    filename: str
    kind: Kind
    source: str
    target: str
    encoding: str
    names: list[str]


@asynccontextmanager
async def form_of(request: Request, entry: ModelEntry) -> AsyncIterator[Form]:
    """Everything about an upload that can be checked without its text. Its file lies on the disk,
    if it is large, as long as the context lasts."""
    parts = await _parts(request)
    try:
        file = parts.get("file")
        if not isinstance(file, UploadFile):
            detail = "file is missing. Send the document as a file part: curl -F file=@notes.txt"
            raise Problem(422, "missing_field", detail, field="file")
        source, target = _required(parts, "source"), _required(parts, "target")
        check_pair(entry, source, target, ("source", "target"))
        filename = _plain_name(file.filename or "")
        kind = _kind(_optional(parts, "format"), filename, file.content_type or "")
        _check_size(file)
        encoding = _optional(parts, "encoding")
        yield Form(file, filename, kind, source, target, encoding, _names(parts, kind))
    finally:
        await parts.close()


async def _parts(request: Request) -> FormData:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "multipart/form-data":
        raise Problem(
            415,
            "not_multipart",
            "A document is sent as multipart/form-data with the parts file, source and target.",
            field="Content-Type",
        )
    refuse_compressed(request)
    broken: Exception | None = None

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal broken
        try:
            async for chunk in request.stream():
                yield chunk
        except (Problem, ClientDisconnect) as error:
            broken = error
            raise MultiPartException("the body broke off") from error  # the parser closes its files

    try:
        return await MultiPartParser(
            request.headers,
            chunks(),
            max_files=1,
            max_fields=MAX_PARTS,
            max_part_size=MAX_PART_BYTES,
        ).parse()
    except (MultiPartException, UnicodeDecodeError, KeyError):
        if broken is not None:
            raise broken from None
        raise Problem(
            400,
            "malformed_multipart",
            f"The body is not sound multipart/form-data of one file and at most {MAX_PARTS} short"
            " parts.",
            field="body",
        ) from None


def _required(parts: FormData, name: str) -> str:
    value = _optional(parts, name)
    if not value:
        raise Problem(422, "missing_field", f"{name} is missing. Add it.", field=name)
    return value


def _optional(parts: FormData, name: str) -> str:
    values = parts.getlist(name)
    if len(values) > 1 or not all(isinstance(value, str) for value in values):
        raise Problem(422, "invalid_value", f"{name} must be text, given once.", field=name)
    return str(values[0]).strip() if values else ""


def _plain_name(filename: str) -> str:
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in name if char.isprintable())[-MAX_FILENAME_CHARS:]


def _kind(asked: str, filename: str, media_type: str) -> Kind:
    if asked:
        if asked not in BY_NAME:
            detail = f"format must be one of {', '.join(BY_NAME)}."
            raise Problem(422, "unknown_format", detail, field="format")
        return BY_NAME[asked]
    kind = recognised(filename, media_type.partition(";")[0].strip().lower())
    if kind is None:
        known = ", ".join(f"{kind.title} ({', '.join(kind.extensions)})" for kind in KINDS)
        raise Problem(
            415,
            "unsupported_type",
            f"This type of file is not translated. Supported: {known}. If it is one of these under"
            " another name, say which with format.",
            field="file",
        )
    return kind


def _check_size(file: UploadFile) -> None:
    if (file.size or 0) > MAX_DOCUMENT_BYTES:
        raise Problem(
            413,
            "document_too_large",
            f"file is larger than {MAX_DOCUMENT_BYTES:,} bytes. Split it.",
            field="file",
        )
    if not file.size:
        raise Problem(422, "empty_file", "file is empty. Send a document.", field="file")


def _names(parts: FormData, kind: Kind) -> list[str]:
    """The columns or fields: repeated parts, or several in one, separated by commas."""
    for field in ("columns", "fields"):
        if field != kind.names_field and parts.getlist(field):
            detail = f"{field} has no meaning for {kind.title}. Leave it out."
            raise Problem(422, "unexpected_field", detail, field=field)
    if not kind.names_field:
        return []
    lines = [value for value in parts.getlist(kind.names_field) if isinstance(value, str)]
    try:
        rows = list(csv.reader(lines, skipinitialspace=True))
    except csv.Error:
        rows = []
    names = list(dict.fromkeys(name.strip() for row in rows for name in row if name.strip()))
    if not names:
        raise Problem(
            422,
            "missing_field",
            f"{kind.names_field} is missing. Name the {kind.names_field} of the {kind.title} file"
            " that are to be translated, separated by commas.",
            field=kind.names_field,
        )
    if len(names) > MAX_NAMES:
        detail = f"{kind.names_field} must not name more than {MAX_NAMES}."
        raise Problem(422, "invalid_value", detail, field=kind.names_field)
    return names


async def examine(form: Form, body: bytes, model: str, bounds: Bounds) -> tuple[Upload, int]:
    """Decodes and takes apart the whole file, in a process of its own: what it is, and how many
    texts it holds."""
    try:
        encoding, total = await confinement.examine(
            body, form.kind.name, form.names, form.encoding, bounds
        )
    except Malformed as error:
        members = {} if error.line is None else {"line": error.line}
        raise Problem(422, error.code, error.detail, field=error.field, members=members) from None
    upload = Upload(
        filename=form.filename,
        kind=form.kind.name,
        encoding=encoding.name,
        mark=encoding.mark.hex(),
        names=form.names,
        model=model,
        source=form.source,
        target=form.target,
        size=len(body),
    )
    return upload, total
