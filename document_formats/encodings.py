"""From the bytes of a document to its text and back, byte order mark included."""

import codecs
from dataclasses import dataclass
from encodings import normalize_encoding
from encodings.aliases import aliases

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins the same
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python's codecs that are encodings of text, without those whose decoders can be made to take
# quadratic time (idna, punycode) or are no encodings of documents (escapes, UTF-7).
_UNALIASED = "cp720 cp737 cp856 cp874 cp875 cp1006 koi8_t koi8_u"
_MAC = "mac_arabic mac_croatian mac_farsi mac_romanian"
_NO_TEXT = "base64_codec bz2_codec hex_codec quopri_codec rot_13 uu_codec zlib_codec mbcs"
_UNFIT = "idna punycode unicode_escape raw_unicode_escape utf_7"
CODECS = {*aliases.values(), *_UNALIASED.split(), *_MAC.split()} - {
    *_NO_TEXT.split(),
    *_UNFIT.split(),
}


@dataclass(frozen=True)
class Encoding:
    """A codec's name, and the mark that the document began with."""

    name: str
    mark: bytes = b""

    @property
    def codec(self) -> str:
        """Python's name for it. Raises LookupError for what is not one of ``CODECS``."""
        name = normalize_encoding(self.name.lower()).replace(".", "_")
        codec = aliases.get(name, name)
        if codec not in CODECS:
            raise LookupError("no encoding of text")
        return codec

    def decode(self, body: bytes) -> str:
        """Raises UnicodeError (LookupError for a codec that is not one of text)."""
        return body[len(self.mark) :].decode(self.codec)

    def encode(self, text: str) -> tuple[bytes, "Encoding"]:
        """The bytes, and the encoding they are in: UTF-8 where this one lacks a character."""
        try:
            return self.mark + text.encode(self.codec), self
        except UnicodeEncodeError:
            return text.encode(), Encoding("utf-8")


def marked(body: bytes) -> Encoding | None:
    """What the byte order mark says, if there is one."""
    return next((Encoding(name, mark) for mark, name in _MARKS if body.startswith(mark)), None)


def fits(encoding: Encoding, body: bytes) -> bool:
    """Whether the body is text in that encoding and comes out the same when written again."""
    try:
        text = encoding.decode(body)
        return "\0" not in text and encoding.mark + text.encode(encoding.codec) == body
    except (UnicodeError, LookupError):
        return False
