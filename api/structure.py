"""The structure of a JSON body while it streams in: how deep it is nested and how many records it
holds, in pieces of any size and without decoding. Looks at brackets alone: what is no JSON is
found out by the decoder."""

import re

from api.problems import Problem
from api.schemas import MAX_RECORDS

MAX_DEPTH = 100  # a record is the fourth level
MAX_STRUCTURES = 10_000  # objects and arrays in all; the largest request has 1,003

# Everything up to a bracket or to a string that does not end in this piece.
_PLAIN = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_KEY = re.compile(rb'"(payload|records)"\s*:\s*\Z')
_KEY_BYTES = 64  # looked at before a bracket
_QUOTE, _BACKSLASH = b'"\\'


class Structure:
    """Follows one body."""

    def __init__(self) -> None:
        self._depth = 0
        self._structures = 0
        self._records = 0
        self._in_payload = self._in_records = False
        self._in_string = self._escaped = False
        self._before = b""  # the end of what stood before the next bracket

    def feed(self, piece: bytes) -> None:
        """Takes the next piece. Raises Problem for more than a request may hold."""
        at = 0
        while at < len(piece):
            at = self._close_string(piece, at) if self._in_string else self._next(piece, at)

    def _close_string(self, piece: bytes, at: int) -> int:
        """Goes on in a string that began in an earlier piece; where it ends."""
        start, at = at, at + self._escaped
        match = _IN_STRING.match(piece, at)
        end = match.end() if match else at
        self._escaped = end < len(piece) and piece[end] == _BACKSLASH
        self._in_string = end >= len(piece) or self._escaped
        self._note(piece, start, min(end + 1, len(piece)))
        return end + 1

    def _next(self, piece: bytes, at: int) -> int:
        match = _PLAIN.match(piece, at)
        end = match.end() if match else at
        if end == len(piece):
            self._note(piece, at, end)
            return end
        if piece[end] == _QUOTE:  # a string that does not end here
            self._in_string = True
            self._note(piece, at, end + 1)
            return end + 1
        self._note(piece, at, end)
        self._bracket(piece[end : end + 1])
        self._before = b""
        return end + 1

    def _note(self, piece: bytes, start: int, end: int) -> None:
        self._before = (self._before + piece[max(start, end - _KEY_BYTES) : end])[-_KEY_BYTES:]

    def _bracket(self, mark: bytes) -> None:
        if mark in b"]}":
            self._depth -= 1
            self._in_records = self._in_records and self._depth > 2
            self._in_payload = self._in_payload and self._depth > 1
            return
        key = _KEY.search(self._before)
        name = key[1] if key else b""
        if self._depth == 1 and mark == b"{":
            self._in_payload = name == b"payload"
        elif self._depth == 2 and mark == b"[":
            self._in_records = self._in_payload and name == b"records"
        elif self._depth == 3 and self._in_records:
            self._records += 1
        self._depth += 1
        self._structures += 1
        self._check()

    def _check(self) -> None:
        if self._depth > MAX_DEPTH:
            raise Problem(
                400, "too_deep", "The body is nested too deeply. Send flat records.", field="body"
            )
        if self._records > MAX_RECORDS:
            raise Problem(
                422,
                "too_many_records",
                f"payload.records holds more than {MAX_RECORDS:,} records. Split them over several"
                " requests.",
                field="payload.records",
            )
        if self._structures > MAX_STRUCTURES:
            raise Problem(
                413,
                "too_many_values",
                f"The body holds more than {MAX_STRUCTURES:,} objects and arrays. Send nothing but"
                " payload.",
                field="body",
            )
