"""The bodies of the documents routes."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.wire import State


class DocumentFlaw(msgspec.Struct, frozen=True, omit_defaults=True):
    """A text that stayed as it was, and why."""

    code: str
    detail: str
    line: Annotated[int, Meta(description="Where it begins in the file, from 1.")] | UnsetType = (
        UNSET
    )


class DocumentJob(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A document as it stands."""

    id: str
    state: Annotated[
        State,
        Meta(description="`done` once the result can be read; `failed` if nothing was translated."),
    ]
    total: Annotated[
        int, Meta(description="Texts to translate: lines, subtitles, cells or strings.")
    ]
    done: Annotated[int, Meta(description="Texts that have ended, translated or not.")]
    failed: Annotated[int, Meta(description="Texts that stay as they are in the result.")]
    filename: Annotated[str, Meta(description="Of the result.")]
    format: Annotated[str, Meta(description="`text`, `srt`, `csv` or `jsonl`.")]
    encoding: Annotated[
        str, Meta(description="Of the upload; of the result, once there is one, if that differs.")
    ]
    size: Annotated[int, Meta(description="Bytes of the upload.")]
    source: str
    target: str
    created_at: Annotated[str, Meta(description="RFC 3339, UTC.")]
    deadline_at: Annotated[str, Meta(description="Texts not begun by then end as expired.")]
    expires_at: Annotated[str, Meta(description="When the document and its result are dropped.")]
    result: Annotated[str, Meta(description="Where the result is, once done.")] | UnsetType = UNSET
    error: Annotated[DocumentFlaw, Meta(description="Why the document failed.")] | UnsetType = UNSET
    report: (
        Annotated[
            list[DocumentFlaw], Meta(description="The first 1,000 texts that stay as they are.")
        ]
        | UnsetType
    ) = UNSET


ALL: tuple[type[msgspec.Struct], ...] = (DocumentJob,)
