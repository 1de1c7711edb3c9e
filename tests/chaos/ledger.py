"""The client's own books: what was accepted, what it must come back as, and what did not."""

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_SHOWN = 40
# What each kind of poison ends as; the last two end their workers, and become dead letters.
ERRORS = {"raise": "internal", "hang": "poison", "crash": "poison"}
DEADLY = {kind for kind, code in ERRORS.items() if code == "poison"}
_STAMP = re.compile(r" by \d+")


@dataclass(slots=True)
class Entry:
    """A request. ``poison`` is a record's place → its kind."""

    number: int
    size: int
    poison: Mapping[int, str] = field(default_factory=dict)
    key: str = ""
    location: str = ""  # once a server gave one
    accepted: bool = False
    cancelled: bool = False
    opened_s: float = field(default_factory=time.monotonic)
    answer: int | None = None  # a digest of the first answer that was complete

    def text(self, index: int) -> str:
        """The record's text, which names it."""
        return f"{self.number} {index} {self.poison.get(index, 'here')}"

    @property
    def body(self) -> dict[str, Any]:
        records = [{"id": index, "text": self.text(index)} for index in range(self.size)]
        return {"payload": {"fromLang": "en", "toLang": "de", "records": records}}


class Ledger:
    """All requests of a run, and every way in which the service broke its promise."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}  # accepted, by number
        self.planted: dict[str, str] = {}  # text of a poison record → its kind
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.slowest_s = 0.0  # from the first call to the first complete answer

    def open(self, size: int, poison: str = "", key: bool = False) -> Entry:
        """A new request; poison goes in the middle of its neighbours."""
        number = self.counts["requests"] = self.counts["requests"] + 1
        entry = Entry(number, size, {size // 2: poison} if poison else {})
        if key:
            entry.key = f"chaos-{number}"
        for index, kind in entry.poison.items():
            self.planted[entry.text(index)] = kind
            self.counts[f"planted: {kind}"] += 1
        return entry

    def accept(self, entry: Entry, location: str = "") -> None:
        """A 200 or 202 came, or the Location of work that goes on."""
        if not entry.accepted:
            entry.accepted = True
            self.entries[entry.number] = entry
            self.counts["records accepted"] += entry.size
        if location and entry.location and location != entry.location:
            self.blame(entry, f"accepted twice: {entry.location} and {location}")
        entry.location = entry.location or location

    def check(self, entry: Entry, result: Sequence[Mapping[str, Any]]) -> None:
        """Holds a complete answer to what was sent and to what was answered before."""
        problems = [
            problem
            for index, record in enumerate(result)
            if (problem := self._wrong(entry, index, record))
        ]
        if len(result) != entry.size:
            problems.append(f"{len(result)} of {entry.size} records")
        if problems:
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            self.blame(entry, problems[0] + more)
        digest = hash(tuple(record.get("text") for record in result))
        if entry.answer is None:
            entry.answer = digest
            self.slowest_s = max(self.slowest_s, time.monotonic() - entry.opened_s)
            self.counts["records checked"] += entry.size
        else:
            self.counts["records read again"] += entry.size
            if entry.answer != digest:
                self.blame(entry, "answered twice with different results")

    def _wrong(self, entry: Entry, index: int, record: Mapping[str, Any]) -> str:
        if record.get("id") != index:
            return f"record {index} came back as {record.get('id')!r}"
        text, error = record.get("text"), record.get("error")
        if kind := entry.poison.get(index):
            wanted = ERRORS[kind]
            found = error and error["code"]
            return "" if found == wanted else f"poison ({kind}) ended as {text or error}"
        if error:
            return f"record {index} failed: {error['code']}"
        sent = entry.text(index)
        if text is None or not text.startswith(sent) or not _STAMP.fullmatch(text, len(sent)):
            return f"record {index} came back as {text!r}"
        return ""

    def blame(self, entry: Entry | None, what: str) -> None:
        """Notes a broken promise."""
        where = f"request {entry.number} ({entry.size} records, {entry.location})" if entry else ""
        self.violations.append(f"{where}: {what}" if where else what)

    @property
    def lost(self) -> list[Entry]:
        """Accepted requests without a complete answer."""
        return [e for e in self.entries.values() if e.answer is None and not e.cancelled]
