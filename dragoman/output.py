"""Where ``dragoman translate`` writes: standard output, or a file."""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from dragoman.lines import Unusable


class Output:
    """Opened when there is something to write, so that a refused call leaves a file as it was."""

    def __init__(self, path: str, inputs: Sequence[str]) -> None:
        if path and any(same_file(path, one) for one in inputs):
            raise Unusable("--output is one of the files to be translated")
        self._path = path
        self._stream: TextIO | None = None
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._exits.close()

    @property
    def on_terminal(self) -> bool:
        return not self._path and sys.stdout.isatty()

    def stream(self) -> TextIO:
        """UTF-8, line endings as they are. Raises Unusable."""
        if self._stream is None:
            try:
                where = Path(self._path) if self._path else sys.stdout.fileno()
                self._stream = self._exits.enter_context(
                    open(  # noqa: SIM115 - closed by __exit__
                        where, "w", encoding="utf-8", newline="", closefd=bool(self._path)
                    )
                )
            except OSError as error:
                raise Unusable(f"{self._path} cannot be written: {error.strerror}") from error
        return self._stream


def same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one does not exist, or is no path at all
        return False


def progress_bar(output: Output) -> Progress:
    """Drawn on standard error when that is a terminal and the translations do not go there too."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("translating"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or output.on_terminal,
        transient=True,
    )
