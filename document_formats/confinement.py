"""Documents are taken apart in a process of their own, so that one that costs too much memory or
time costs nobody else anything: ``examine`` for the API's door, ``split`` for the document worker.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from document_formats.encodings import Encoding
from document_formats.spans import Malformed, Span

COMMAND = (sys.executable, "-I", "-m", "document_formats.cell")
WALL_PER_CPU = 10  # how much longer it may take on a busy machine


class CellFailed(Exception):
    """The process ended in a way that is the program's fault, not the document's."""


@dataclass(frozen=True)
class Bounds:
    """What taking one document apart may cost."""

    memory_mib: int
    cpu_s: int


async def examine(
    body: bytes, kind: str, names: Sequence[str], encoding: str, bounds: Bounds
) -> tuple[Encoding, int]:
    """The encoding of an upload, of which ``encoding`` says what the caller named, and how many
    texts are in it. Raises Malformed, CellFailed."""
    question = {"task": "examine", "kind": kind, "names": names, "encoding": encoding}
    answer = await _ask(question, body, bounds)
    return Encoding(answer["encoding"], bytes.fromhex(answer["mark"])), int(answer["total"])


async def split(
    body: bytes, kind: str, names: Sequence[str], encoding: Encoding, bounds: Bounds
) -> list[Span]:
    """The texts of a document. Raises Malformed, CellFailed."""
    question = {"task": "split", "kind": kind, "names": names, "encoding": encoding.name}
    answer = await _ask(question | {"mark": encoding.mark.hex()}, body, bounds)
    return [Span(*span) for span in answer["spans"]]


async def _ask(question: dict[str, Any], body: bytes, bounds: Bounds) -> dict[str, Any]:
    question |= {"memory_mib": bounds.memory_mib, "cpu_s": bounds.cpu_s}
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},  # no passwords
    )
    try:
        async with asyncio.timeout(bounds.cpu_s * WALL_PER_CPU):
            said, _ = await process.communicate(json.dumps(question).encode() + b"\n" + body)
    except TimeoutError:
        raise _exceeded("time", bounds) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    status = process.returncode or 0
    if status == -signal.SIGXCPU:
        raise _exceeded("time", bounds)
    if status < 0:
        raise _exceeded("memory", bounds)  # a library that did not expect to be refused any
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        raise CellFailed(f"it ended with status {status}") from None
    return _checked(answer, bounds)


def _checked(answer: dict[str, Any], bounds: Bounds) -> dict[str, Any]:
    if "malformed" in answer:
        code, detail, line, field = answer["malformed"]
        raise Malformed(code, detail, line=line, field=field)
    if "exceeded" in answer:
        raise _exceeded(answer["exceeded"], bounds)
    if "mistake" in answer:
        raise CellFailed(answer["mistake"])
    return answer


def _exceeded(what: str, bounds: Bounds) -> Malformed:
    limit = {
        "memory": f"{bounds.memory_mib:,} MiB of memory",
        "time": f"{bounds.cpu_s:,} s of CPU time",
    }[what]
    detail = f"Taking the file apart takes more than {limit}. Split it."
    return Malformed("too_complex", detail)
