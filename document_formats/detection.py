"""Which encoding the bytes of a document are in: by the byte order mark, by what the upload says,
as UTF-8, or by how they look."""

import codecs

import charset_normalizer
from charset_normalizer.constant import IANA_SUPPORTED

from document_formats.encodings import Encoding, fits, marked
from document_formats.spans import Malformed

GUESSED_BYTES = 64 * 1024  # looked at when nothing says which encoding it is
_REMEDY = "Send UTF-8, or name the encoding with encoding (such as shift_jis or cp1252)."


def detected(body: bytes, named: str, guess: bool) -> Encoding:
    """The encoding. ``named`` is what the upload says, "" without; nothing is guessed unless
    ``guess``. Raises Malformed."""
    if named and not marked(body):
        name = "utf-8" if named.lower() == "utf-8-sig" else named
        if fits(Encoding(name), body):
            return Encoding(name)
        what = "The file is not text in the encoding that the upload names."
        raise Malformed("bad_encoding", f"{what} {_REMEDY}", field="encoding")
    found = marked(body) or Encoding("utf-8")
    if fits(found, body):
        return found
    if not guess or found.mark:
        what = f"The file is not valid {found.name.upper()}."
        raise Malformed("bad_encoding", f"{what} {_REMEDY}", line=_line(body, found))
    for match in charset_normalizer.from_bytes(body[:GUESSED_BYTES]):
        if fits(Encoding(match.encoding), body):
            return Encoding(match.encoding)
    what = "The file is not text in an encoding that could be recognised."
    raise Malformed("bad_encoding", f"{what} {_REMEDY}")


def load_codecs() -> None:
    """Loads every codec that guessing tries, for who will not be able to open files then."""
    for name in IANA_SUPPORTED:
        codecs.lookup(name)


def _line(body: bytes, encoding: Encoding) -> int | None:
    try:
        encoding.decode(body)
    except UnicodeDecodeError as error:
        return body[: len(encoding.mark) + error.start].count(b"\n") + 1
    return None
