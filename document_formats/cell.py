"""``python -I -m document_formats.cell``: takes one document apart in a process that can do nothing
else. Its limits stand before the first byte of the document is read: memory, CPU time, no core, no
file to write, no process to start, and none to open, which leaves it no socket either.

Reads a line of JSON and the document from stdin; writes one value of JSON to stdout.
"""

import codecs
import json
import resource
import sys
from typing import Any

from document_formats.encodings import Encoding, fits, marked
from document_formats.kinds import BY_NAME
from document_formats.pieces import count
from document_formats.spans import Malformed

MIB = 1024 * 1024


def main() -> int:
    """The exit status: 0, since what went wrong is an answer too."""
    question: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    confine(question["memory_mib"], question["cpu_s"])
    try:
        answer = answered(question, sys.stdin.buffer.read())
    except Malformed as error:
        answer = {"malformed": [error.code, error.detail, error.line, error.field]}
    except MemoryError:
        answer = {"exceeded": "memory"}
    except Exception as error:  # its message may quote the document
        answer = {"mistake": type(error).__name__}
    sys.stdout.write(json.dumps(answer))
    return 0


def confine(memory_mib: int, cpu_s: int) -> None:
    """Limits this process for good."""
    for kind, most in (
        (resource.RLIMIT_AS, memory_mib * MIB),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # SIGXCPU, then SIGKILL


def answered(question: dict[str, Any], body: bytes) -> dict[str, Any]:
    """What ``document_formats.confinement`` asks for. Raises Malformed."""
    kind, names = BY_NAME[question["kind"]], question["names"]
    if question["task"] == "split":
        encoding = Encoding(question["encoding"], bytes.fromhex(question["mark"]))
        codecs.lookup(encoding.codec)
        _open_nothing()
        return {"spans": kind.split(encoding.decode(body), names)}
    named = question["encoding"]
    if not named and not fits(marked(body) or Encoding("utf-8"), body):
        # Looking at bytes for an encoding takes a library that only this needs.
        from document_formats.detection import load_codecs

        load_codecs()
    elif named:
        fits(Encoding(named), b"")  # loads it
    from document_formats.detection import detected

    _open_nothing()
    found = detected(body, named, guess=kind.name != "jsonl")
    total = count(kind.split(found.decode(body), names))
    return {"encoding": found.name, "mark": found.mark.hex(), "total": total}


def _open_nothing() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
