"""Bytes to text and back."""

import codecs

import pytest

from document_formats.encodings import Encoding, fits, marked


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (codecs.BOM_UTF8 + "é".encode(), "utf-8"),
        (codecs.BOM_UTF16_LE + "é".encode("utf-16-le"), "utf-16-le"),
        (codecs.BOM_UTF16_BE + "é".encode("utf-16-be"), "utf-16-be"),
        (codecs.BOM_UTF32_LE + "é".encode("utf-32-le"), "utf-32-le"),
    ],
)
def test_marks_are_seen_and_kept(body: bytes, name: str) -> None:
    encoding = marked(body)
    assert encoding is not None
    assert encoding.name == name
    assert encoding.decode(body) == "é"
    assert encoding.encode("é") == (body, encoding)
    assert fits(encoding, body)


def test_a_codec_that_lacks_a_character_gives_way_to_utf_8() -> None:
    body, encoding = Encoding("cp1252").encode("人生")
    assert (body, encoding) == ("人生".encode(), Encoding("utf-8"))
    assert Encoding("cp1252").encode("é")[0] == b"\xe9"


def test_what_does_not_fit() -> None:
    assert marked(b"plain") is None
    assert not fits(Encoding("utf-8"), b"\xff")
    assert not fits(Encoding("utf-8"), b"PK\0\0")
    assert not fits(Encoding("hex"), b"abcd")
    assert not fits(Encoding("no-such-codec"), b"abcd")
    assert fits(Encoding("shift_jis"), "日本語".encode("shift_jis"))
