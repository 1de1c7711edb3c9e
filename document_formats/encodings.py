"""From the bytes of a document to its text and back, byte order mark included."""

import codecs
from dataclasses import dataclass

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins the same
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Encoding:
    """A codec's name, and the mark that the document began with."""

    name: str
    mark: bytes = b""

    def decode(self, body: bytes) -> str:
        """Raises UnicodeError (LookupError for a codec that is not one of text)."""
        return body[len(self.mark) :].decode(self.name)

    def encode(self, text: str) -> tuple[bytes, "Encoding"]:
        """The bytes, and the encoding they are in: UTF-8 where this one lacks a character."""
        try:
            return self.mark + text.encode(self.name), self
        except UnicodeEncodeError:
            return text.encode(), Encoding("utf-8")


def marked(body: bytes) -> Encoding | None:
    """What the byte order mark says, if there is one."""
    return next((Encoding(name, mark) for mark, name in _MARKS if body.startswith(mark)), None)


def fits(encoding: Encoding, body: bytes) -> bool:
    """Whether the body is text in that encoding and comes out the same when written again."""
    try:
        text = encoding.decode(body)
        return "\0" not in text and encoding.mark + text.encode(encoding.name) == body
    except (UnicodeError, LookupError):
        return False
