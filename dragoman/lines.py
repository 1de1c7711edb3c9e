"""``dragoman translate``: texts, files and standard input, line by line, through jobs that overlap,
with the lines' order, endings and blank lines kept."""

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dragoman.answers import Result, outcome
from dragoman.client import Client, Job
from dragoman.errors import DragomanError

LINES_PER_JOB = 200
CHARS_PER_JOB = 50_000
JOBS_IN_FLIGHT = 6  # enough to keep a few workers busy while the first is being written
PIECE_CHARS = 9_000  # of a line longer than the server's 10,000
POLL_S = 1  # how often the progress bar moves, at least

_ENDINGS = ("\r\n", "\n", "\r")
_PATH = re.compile(r"\.{0,2}/\S+|\S*\w\.[A-Za-z]\w{0,4}")
_SENTENCE_END = re.compile(r"[.!?]\s+|[。！？]")


class Unusable(Exception):
    """An input that cannot be read, or an output that cannot be written; the message says why."""


@dataclass(frozen=True)
class Line:
    """A line without its ending, and the ending, which may be empty at the end of a file."""

    text: str
    ending: str


@dataclass(frozen=True)
class FailedLine:
    """A line the server could not translate; ``number`` counts from 1 over all inputs."""

    number: int
    code: str
    detail: str


def split(raw: str) -> Line:
    for ending in _ENDINGS:
        if raw.endswith(ending):
            return Line(raw[: -len(ending)], ending)
    return Line(raw, "")


def is_input(argument: str) -> bool:
    """Whether an argument names lines to be read: ``-``, or a file that exists."""
    if argument == "-":
        return True
    with suppress(OSError, ValueError):  # too long for a path, or holds a NUL: it is text
        return Path(argument).is_file()
    return False


def seems_a_file(argument: str) -> bool:
    """Whether an argument that is no input looks as if it were meant to be one."""
    return not is_input(argument) and _PATH.fullmatch(argument) is not None


def read(arguments: Sequence[str]) -> Iterator[Line]:
    """The lines of all arguments in order; an argument that is text is one line.

    Raises Unusable.
    """
    for argument in arguments:
        if not is_input(argument):
            yield Line(argument, "\n")
        elif argument == "-":
            yield from _lines(sys.stdin.buffer.fileno(), "standard input")
        else:
            try:
                descriptor = os.open(argument, os.O_RDONLY)
            except OSError as error:
                raise Unusable(f"{argument} cannot be read: {error.strerror}") from error
            yield from _lines(descriptor, argument)


def _lines(descriptor: int, name: str) -> Iterator[Line]:
    closes = name != "standard input"
    with open(descriptor, encoding="utf-8", newline="\n", closefd=closes) as source:
        try:
            yield from map(split, source)
        except UnicodeDecodeError as error:
            raise Unusable(f"{name} is not UTF-8 text: {error.reason}") from error


def size_bytes(arguments: Sequence[str]) -> int | None:
    """How much there is to read, or None when standard input takes part."""
    if "-" in arguments:
        return None
    return sum(
        Path(one).stat().st_size if is_input(one) else len(one.encode()) for one in arguments
    )


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Runs of lines that make a job each."""
    batch: list[Line] = []
    chars = 0
    for line in lines:
        if batch and (len(batch) == LINES_PER_JOB or chars + len(line.text) > CHARS_PER_JOB):
            yield batch
            batch, chars = [], 0
        batch.append(line)
        chars += len(line.text)
    if batch:
        yield batch


def pieces(text: str) -> list[str]:
    """A text in parts the server takes, cut after a sentence if it can be, else after a space."""
    cut: list[str] = []
    while len(text) > PIECE_CHARS:
        head = text[:PIECE_CHARS]
        end = max((match.end() for match in _SENTENCE_END.finditer(head)), default=0)
        end = end or head.rfind(" ") + 1 or PIECE_CHARS
        cut.append(text[:end])
        text = text[end:]
    return [*cut, text]


class LineTranslator:
    """Hands batches in as jobs, a few ahead, and writes results in the order of the lines."""

    def __init__(
        self,
        client: Client,
        source: str,
        target: str,
        output: Callable[[], TextIO],
        advanced: Callable[[int], None],
    ) -> None:
        self.failed: list[FailedLine] = []
        self._client, self._source, self._target = client, source, target
        self._output = output  # opened with the first result: a refused call leaves a file alone
        self._advanced = advanced  # told how many bytes of input were finished
        self._jobs: deque[tuple[Job | None, list[Line]]] = deque()
        self._written = 0

    def run(self, lines: Iterable[Line]) -> None:
        """Translates all lines. When it is interrupted or fails, its jobs are cancelled."""
        try:
            for batch in batches(lines):
                self._jobs.append((self._submit(batch), batch))
                if len(self._jobs) >= JOBS_IN_FLIGHT:
                    self._write_first()
            while self._jobs:
                self._write_first()
        except BaseException:
            self._cancel()
            raise

    def _submit(self, batch: list[Line]) -> Job | None:
        texts = [piece for line in batch if line.text.strip() for piece in pieces(line.text)]
        return self._client.submit(texts, self._source, self._target) if texts else None

    def _write_first(self) -> None:
        job, batch = self._jobs[0]
        results = iter(self._finished(job, batch) if job else ())
        output = self._output()
        for line in batch:
            self._written += 1
            text = line.text
            if text.strip():
                text = self._joined([next(results) for _ in pieces(line.text)])
            output.write(text + line.ending)
        output.flush()
        self._jobs.popleft()

    def _finished(self, job: Job, batch: list[Line]) -> list[Result]:
        size = sum(len((line.text + line.ending).encode()) for line in batch)
        shown = 0
        while True:
            status = job.refresh(POLL_S)
            now = size * status.done // max(1, status.total)
            self._advanced(now - shown)
            shown = now
            if status.finished:
                return outcome(status)

    def _joined(self, results: Sequence[Result]) -> str:
        """A line's translation, or an empty one that is reported: lines stay aligned."""
        for result in results:
            if result.error is not None:
                failed = FailedLine(self._written, result.error.code, result.error.detail)
                self.failed.append(failed)
                return ""
        return "".join(result.text or "" for result in results)

    def _cancel(self) -> None:
        for job, _ in self._jobs:
            if job is not None:
                with suppress(DragomanError):
                    job.cancel()
