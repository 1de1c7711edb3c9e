"""Tests of ``document_formats.confinement``: documents taken apart by processes with limits."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from document_formats.confinement import COMMAND, Bounds, examine, split
from document_formats.encodings import CODECS, Encoding, fits
from document_formats.kinds import BY_NAME
from document_formats.spans import Malformed

USUAL = Bounds(memory_mib=512, cpu_s=20)
UTF8 = Encoding("utf-8")
COSTLY = b"t\n" + b'"",' * 9_000 + b"x\n" + (b"a," * 9_000 + b"\n") * 200  # 1.8 million cells


async def test_a_document_comes_apart_as_it_does_here() -> None:
    body = b'{"t": "ein \\u00df", "u": {"v": ["zwei"]}}\n{"t": "half \\ud83d"}\n'
    spans = await split(body, "jsonl", ["t", "u.v"], UTF8, USUAL)
    assert spans == BY_NAME["jsonl"].split(body.decode(), ["t", "u.v"])


@pytest.mark.parametrize(
    ("body", "named", "found"),
    [
        (b"one\ntwo\n", "", UTF8),
        ("Größe".encode("cp1252"), "latin-1", Encoding("latin-1")),
        ("これは日本語の文章です。\n".encode("shift_jis") * 20, "", Encoding("cp932")),
        (b"\xff\xfeo\0n\0e\0", "", Encoding("utf-16-le", b"\xff\xfe")),
    ],
)
async def test_encodings_are_found_without_opening_a_file(
    body: bytes, named: str, found: Encoding
) -> None:
    encoding, total = await examine(body, "text", [], named, USUAL)
    assert encoding == found
    assert total == body.count(b"\n") or total == 1


async def test_what_is_malformed_says_where() -> None:
    with pytest.raises(Malformed) as caught:
        await examine(b'{"t": "a"}\n{', "jsonl", ["t"], "", USUAL)
    assert (caught.value.code, caught.value.line) == ("malformed_json", 2)


async def test_a_document_that_takes_too_much_time() -> None:
    with pytest.raises(Malformed, match="more than 1 s of CPU time") as caught:
        await split(COSTLY * 4, "csv", ["t"], UTF8, Bounds(memory_mib=512, cpu_s=1))
    assert caught.value.code == "too_complex"


async def test_a_document_that_takes_too_much_memory() -> None:
    body = b"a b c\n" * 199_000
    assert len(await split(body, "text", [], UTF8, USUAL)) == 199_000
    with pytest.raises(Malformed, match="more than 64 MiB of memory") as caught:
        await split(body, "text", [], UTF8, Bounds(memory_mib=64, cpu_s=20))
    assert caught.value.code == "too_complex"


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def test_nothing_is_left_running() -> None:
    before = children()  # other tests' processes may still be ours
    with pytest.raises(Malformed):
        await split(COSTLY * 4, "csv", ["t"], UTF8, Bounds(memory_mib=512, cpu_s=1))
    assert children() <= before


PROBE = """
import json, os, resource, socket, sys
from document_formats import cell
cell.confine(512, 5)
cell._open_nothing()
def refused(act):
    try: act()
    except OSError: return True
    return False
print(json.dumps({
    "open": refused(lambda: open("/etc/hosts")),
    "write": refused(lambda: open("/tmp/dragoman-cell", "w")),
    "socket": refused(socket.socket),
    "limits": [resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU,
               resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC)],
    "environment": sorted(os.environ),
}))
"""


def test_the_process_can_open_and_reach_nothing() -> None:
    python = [*COMMAND[: COMMAND.index("-m")], "-c", PROBE]
    said: Any = json.loads(subprocess.run(python, env={}, capture_output=True, check=True).stdout)
    assert said["open"]
    assert said["write"]
    assert said["socket"]
    assert said["limits"] == [[512 << 20, 512 << 20], [5, 6], [0, 0], [0, 0], [0, 0]]
    assert not [name for name in said["environment"] if "DRAGOMAN" in name]


@pytest.mark.parametrize(
    "name", ["idna", "punycode", "utf-7", "unicode_escape", "zlib", "rot13", "undefined", "../x"]
)
def test_codecs_that_are_no_encodings_of_documents(name: str) -> None:
    assert not fits(Encoding(name), b"a")


def test_codecs_that_are() -> None:
    for name in ("utf-8", "UTF-16", "Shift_JIS", "latin-1", "cp1252", "koi8-u", "GB18030", "cp037"):
        assert Encoding(name).codec in CODECS
        assert fits(Encoding(name), "a".encode(name))
