"""The on-disk form of sentence pairs: gzipped TSV, one pair a line, columns source language, target
language, source, target and the Tatoeba id of the Japanese sentence that the pair hangs on."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """One sentence pair; it serves both directions."""

    source_language: str
    target_language: str
    source: str
    target: str
    reference: str


def read_pairs(path: Path) -> Iterator[Pair]:
    """The pairs of `path`, in file order; raises ValueError on a line without five columns."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            columns = line.rstrip("\n").split("\t")
            if len(columns) != len(Pair._fields):
                raise ValueError(f"{path}:{number}: {len(columns)} columns, not five")
            yield Pair(*columns)


def write_pairs(path: Path, pairs: Iterable[Pair]) -> int:
    """Write `pairs` to `path` and return how many there were. Equal pairs give equal bytes."""
    count = 0
    # mtime 0 and no file name keep the header free of when and where it was written.
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        for pair in pairs:
            packed.write(("\t".join(pair) + "\n").encode())
            count += 1
    return count
