"""From the bytes of a request body to a checked TranslationRequest, or to a Problem that names the
field; whatever the bytes are, nothing else comes out."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from api.problems import Problem
from api.schemas import MAX_RECORDS, MAX_TEXT_BYTES, MAX_TEXT_CHARS, TranslationRequest

MAX_DIAGNOSED_BYTES = 1024 * 1024  # the slow search for the culprit is worth no more
_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder(TranslationRequest).decode

# Paths are shown with these names alone; any other key is the caller's text.
_NAMES = frozenset({"payload", "fromLang", "toLang", "records", "id", "text"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_JSON = object()

_KINDS = {
    "str": "a string",
    "int": "a whole number",
    "int | str": "a string or a whole number",
    "object": "an object",
    "array": "an array",
    "null": "null",
    "bool": "true or false",
    "float": "a decimal number",
}


def parse(body: bytes) -> TranslationRequest:
    """Decodes and checks a body. Raises Problem, always with a 4xx status."""
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise Problem(400, "empty_body", "The body is empty. Send a JSON object.", field="body")
    try:
        body.decode()  # msgspec skips over members it does not know, whatever bytes they hold
        request = _decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except UnicodeDecodeError:
        raise _not_utf8(body) from None
    except RecursionError:
        raise Problem(
            400, "too_deep", "The body is nested too deeply. Send flat records.", field="body"
        ) from None
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise _malformed(body, str(error)) from None
    _check_size(body, request)
    return request


def _check_size(body: bytes, request: TranslationRequest) -> None:
    """Escapes only ever make a body longer than its text, so that a short body needs no count."""
    if len(body) <= MAX_TEXT_BYTES:
        return
    if sum(len(record.text.encode()) for record in request.payload.records) > MAX_TEXT_BYTES:
        raise Problem(
            413,
            "too_much_text",
            f"payload.records holds more than {MAX_TEXT_BYTES:,} bytes of text (UTF-8) in all."
            " Split them over several requests.",
            field="payload.records",
        )


def _invalid(message: str) -> Problem:
    """msgspec's message, which never holds the caller's values, in our own words."""
    what, _, where = message.partition(" - at `")
    field = where.rstrip("`").removeprefix("$").removeprefix(".")
    if found := re.fullmatch(r"Object missing required field `(\w+)`", what):
        field = f"{field}.{found[1]}" if field else found[1]
        return Problem(422, "missing_field", f"{field} is missing. Add it.", field=field)
    field = field or "body"
    if found := re.fullmatch(r"Expected `([^`]+)`, got `([^`]+)`", what):
        wanted, got = (_KINDS.get(kind, "another type") for kind in found.groups())
        return Problem(422, "wrong_type", f"{field} must be {wanted}, not {got}.", field=field)
    if what.startswith("Expected `array`"):
        if ">=" in what:
            return Problem(
                422, "no_records", f"{field} is empty. Send at least one record.", field=field
            )
        return Problem(
            422,
            "too_many_records",
            f"{field} holds more than {MAX_RECORDS:,} records. Split them over several requests.",
            field=field,
        )
    if field.endswith(".text") and "of length <=" in what:
        return Problem(
            422,
            "text_too_long",
            f"{field} has more than {MAX_TEXT_CHARS:,} characters. Split it at a paragraph.",
            field=field,
        )
    if "out of range" in what:
        return Problem(
            422,
            "number_out_of_range",
            f"{field} holds a number that does not fit in 64 bits. Send it as a string.",
            field=field,
        )
    return Problem(422, "invalid_value", f"{field} {_flaw(what)}", field=field)


def _flaw(what: str) -> str:
    """What a bound of the schema says that a value breaks, and what to do."""
    bound = re.fullmatch(r"Expected `(?:str` of length|int`) ([<>]=) (-?[0-9]+)", what)
    if bound is None:
        return f"does not fit: {what.replace('`', '')}."
    if "int" in what:
        return "does not fit in 64 bits. Send it as a string."
    if bound[1] == ">=":
        return "is empty. Fill it in."
    return f"has more than {int(bound[2]):,} characters. Shorten it."


def _not_utf8(body: bytes) -> Problem:
    field, _ = _culprit(body)
    detail = f"{field} is not valid UTF-8. Encode the whole body as UTF-8."
    return Problem(400, "invalid_utf8", detail, field=field)


def _malformed(body: bytes, message: str) -> Problem:
    field, value = _culprit(body)
    if value is _NOT_JSON:
        detail = f"{field} holds NaN or Infinity, which JSON does not have. Send finite numbers."
        return Problem(400, "malformed_json", detail, field=field)
    if value is not None or "surrogate" in message:
        detail = f"{field} holds half of a surrogate pair. Send whole characters."
        return Problem(400, "invalid_unicode", detail, field=field)
    position = re.search(r"\(byte (\d+)\)", message)
    where = f" at byte {position[1]}" if position else ", or ends too early"
    return Problem(
        400, "malformed_json", f"The body is not valid JSON{where}. Send one object.", field="body"
    )


def _culprit(body: bytes) -> tuple[str, Any]:
    """The path and the value of the first that is not JSON in UTF-8, or ``body`` and None.

    The strict decoder stops at such a value without naming it, so that a lenient one reads the
    body again.
    """
    if len(body) <= MAX_DIAGNOSED_BYTES:
        text = body.decode(errors="surrogateescape")
        with suppress(ValueError, RecursionError):
            document = json.loads(text, parse_constant=lambda _: _NOT_JSON)
            return next(_culprits(document), ("body", None))
    return "body", None


def _culprits(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if value is _NOT_JSON or (isinstance(value, str) and _SURROGATE.search(value)):
        yield path or "body", value
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _culprits(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if _SURROGATE.search(key):
                yield path or "body", key
            known = f"{path}.{key}".removeprefix(".") if key in _NAMES else path
            yield from _culprits(item, known)
