"""From the texts of a document to the requests they are sent in.

A batch is named by a digest of its texts, so that a later run of the same document finds what an
earlier one has submitted or finished, however either cut the document into batches.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MOST_TEXTS = 250  # a quarter of what a request may hold: progress and resuming come in finer steps
MOST_BYTES = 256 * 1024


@dataclass(frozen=True)
class Batch:
    """Texts that travel in one request."""

    digest: str
    texts: tuple[str, ...]


def batches(texts: Iterable[str]) -> Iterator[Batch]:
    """The texts in order, as many to a batch as fit."""
    batch: list[str] = []
    size = 0
    for text in texts:
        added = len(text.encode())
        if batch and (len(batch) == MOST_TEXTS or size + added > MOST_BYTES):
            yield _batch(batch)
            batch, size = [], 0
        batch.append(text)
        size += added
    if batch:
        yield _batch(batch)


def _batch(texts: Sequence[str]) -> Batch:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return Batch(digest.hexdigest()[:32], tuple(texts))
