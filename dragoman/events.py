"""Server-Sent Events of a job: lines in, finished records out."""

import json
from dataclasses import dataclass, field

from dragoman.answers import Result, result
from dragoman.errors import UnexpectedAnswer

END = "end"


@dataclass
class EventReader:
    """Collects the lines of one stream; ``ended`` once the server has said ``event: end``.

    A stream that is opened again starts from its first record, so records seen before are left out:
    keep the reader over reconnects and call ``restart``.
    """

    ended: bool = False
    _event: str = ""
    _data: list[str] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def restart(self) -> None:
        self._event, self._data = "", []

    def feed(self, line: str) -> Result | None:
        """The record that this line completes, if it does and is new."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                self._event = value
            elif name == "data":
                self._data.append(value)
            return None
        event, data = self._event, self._data
        self.restart()
        if event == END:
            self.ended = True
        elif data:
            return self._record("\n".join(data))
        return None

    def _record(self, data: str) -> Result | None:
        try:
            record = result(json.loads(data))
        except ValueError as error:
            raise UnexpectedAnswer("an event of the job is not JSON") from error
        if record.index in self._seen:
            return None
        self._seen.add(record.index)
        return record
