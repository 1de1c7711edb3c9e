"""The formats there are: how each is recognised, taken apart, put together and served."""

from dataclasses import dataclass

from document_formats import json_lines, plain, subrip, table
from document_formats.spans import Split, Write


@dataclass(frozen=True)
class Kind:
    """A format. ``names_field`` is the upload's field that says what to translate, if one must."""

    name: str
    title: str
    extensions: tuple[str, ...]
    media_types: tuple[str, ...]  # the first is what results are served as
    names_field: str
    split: Split
    write: Write


KINDS = (
    Kind("text", "plain text", (".txt", ".text"), ("text/plain",), "", plain.split, plain.write),
    Kind(
        "srt",
        "SubRip",
        (".srt",),
        ("application/x-subrip", "text/srt", "application/srt"),
        "",
        subrip.split,
        subrip.write,
    ),
    Kind(
        "csv",
        "CSV",
        (".csv", ".tsv"),
        ("text/csv", "text/tab-separated-values", "application/csv"),
        "columns",
        table.split,
        table.write,
    ),
    Kind(
        "jsonl",
        "JSON Lines",
        (".jsonl", ".ndjson"),
        ("application/jsonl", "application/x-ndjson", "application/x-jsonlines"),
        "fields",
        json_lines.split,
        json_lines.write,
    ),
)
BY_NAME = {kind.name: kind for kind in KINDS}


def recognised(filename: str, media_type: str) -> Kind | None:
    """By the file's extension, else by the type it was sent as."""
    lowered = filename.lower()
    for kind in KINDS:
        if lowered.endswith(kind.extensions):
            return kind
    if "." in lowered.rpartition("/")[2].lstrip("."):
        return None  # an extension of something else
    return next((kind for kind in KINDS if media_type in kind.media_types), None)
