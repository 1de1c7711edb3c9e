"""Documents made to cost much, through a real API and a real document worker: each is refused at
the door and, when it lies in Redis all the same, fails with the limit's name; the worker lives on
with the memory it had."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from broker.documents import MAX_DOCUMENT_BYTES, Upload
from tests.api.stage import Process, announce, api_process
from tests.conftest import settings_for
from tests.document_worker.stage import (
    MODEL,
    TENANT,
    Desk,
    ModelWorker,
    document_process,
    until,
)
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

# What is to be refused for another reason takes up to 3 s on a machine whose processors are busy.
LIMITS = ("--parse-cpu-s", "30", "--parse-memory-mib", "128")
HASTY = ("--parse-cpu-s", "2", "--parse-memory-mib", "128")
GROWTH_MIB = 48  # the worker may keep: one document of 10 MiB and what Python does not give back


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.txt", b"0" * 50_000_000)
    return file.getvalue()


class Bomb(NamedTuple):
    filename: str
    body: bytes
    fields: dict[str, str]
    status: int
    code: str
    limit: str  # in the detail


BOMBS = {
    "zip": Bomb("a.txt", zipped(), {}, 422, "bad_encoding", "not text"),
    "zip by name": Bomb("a.zip", zipped(), {}, 415, "unsupported_type", "not translated"),
    "gzip": Bomb("a.txt", gzip.compress(b"0" * 50_000_000), {}, 422, "bad_encoding", "not text"),
    "encoding, quadratic": Bomb(
        "a.txt", b"a" * 1_000_000, {"encoding": "punycode"}, 422, "bad_encoding", "not text"
    ),
    "encoding, packed": Bomb(
        "a.txt", b"x\x9c", {"encoding": "zlib_codec"}, 422, "bad_encoding", "not text"
    ),
    "nesting": Bomb(
        "a.jsonl",
        b'{"t":' + b"[" * 900_000,
        {"fields": "t"},
        422,
        "too_deep",
        "nested too deeply",
    ),
    "JSON, one line": Bomb(
        "a.jsonl",
        b'{"t":"' + b"x" * 2_000_000 + b'"}',
        {"fields": "t"},
        422,
        "line_too_long",
        "1,000,000 characters",
    ),
    "many texts": Bomb("a.txt", b"a\n" * 210_000, {}, 422, "too_many_texts", "200,000 texts"),
    "CSV, columns": Bomb(
        "a.csv",
        b"t\n" + b"a," * 20_000,
        {"columns": "t"},
        422,
        "too_many_columns",
        "10,000 cells",
    ),
    "CSV, cells": Bomb(
        "a.csv",
        b"t\n" + (b"," * 8_000 + b"\n") * 260,
        {"columns": "t"},
        422,
        "too_many_cells",
        "2,000,000 cells",
    ),
    "time": Bomb(
        "a.jsonl",
        (b'{"t":[' + b"[]," * 100_000 + b"[]]}\n") * 20,
        {"fields": ",".join(f"t.f{number}" for number in range(64))},
        422,
        "too_complex",
        "2 s of CPU time",
    ),
    "CSV, a quote that is never closed": Bomb(
        "a.csv", b't\n"' + b'""' * 4_000_000, {"columns": "t"}, 422, "malformed_csv", "never closed"
    ),
    "memory": Bomb(
        "a.txt",
        ("a" * 50 + "\U0001f600\n").encode() * 180_000,
        {},
        422,
        "too_complex",
        "128 MiB of memory",
    ),
}
SLOW = BOMBS.pop("time")  # for those who are hasty
AT_THE_DOOR_ALONE = {"zip by name", "gzip", "encoding, packed", "many texts", "CSV, cells"}


@pytest.fixture
def api(redis_server: RedisServer) -> Iterator[Process]:
    announce(settings_for(redis_server))
    with api_process(redis_server.url, *LIMITS) as process:
        yield process


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def send(api: Process, bomb: Bomb) -> httpx.Response:
    return httpx.post(
        f"{api.url}/documents",
        files={"file": (bomb.filename, bomb.body)},
        data={"source": "en", "target": "ja"} | bomb.fields,
        timeout=120,
    )


def test_the_door_refuses_what_takes_long(redis_server: RedisServer) -> None:
    announce(settings_for(redis_server))
    with api_process(redis_server.url, *HASTY) as hasty:
        answer = send(hasty, SLOW)
    assert (answer.status_code, answer.json()["code"]) == (SLOW.status, SLOW.code)
    assert SLOW.limit in answer.json()["detail"]


async def test_the_document_worker_gives_up_what_takes_long(
    desk: Desk, redis_server: RedisServer
) -> None:
    with document_process(redis_server.url, *HASTY) as process:
        document = await until(desk, await plant(desk, SLOW), state="failed")
        assert process.process.poll() is None
    assert document.attempts == 1
    assert document.ending is not None
    assert document.ending.error is not None
    assert document.ending.error.code == SLOW.code
    assert SLOW.limit in document.ending.error.detail


def test_the_door_refuses_every_bomb(api: Process) -> None:
    for _ in range(2):  # what is loaded once is no growth
        assert send(api, BOMBS["nesting"]).status_code == 422
    before = resident_mib(api.pid)
    for name, bomb in BOMBS.items():
        answer = send(api, bomb)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (bomb.status, bomb.code), name
        assert bomb.limit in problem["detail"], name
    large = Bomb("a.txt", b"x" * (MAX_DOCUMENT_BYTES + 1), {}, 413, "document_too_large", "")
    assert send(api, large).json()["code"] == large.code
    packed = httpx.post(
        f"{api.url}/documents",
        content=gzip.compress(b"0" * 50_000_000),
        headers={"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"},
        timeout=120,
    )
    assert packed.json()["code"] == "compressed"
    assert httpx.get(f"{api.url}/healthz", timeout=120).status_code == 200
    assert resident_mib(api.pid) - before < GROWTH_MIB


async def plant(desk: Desk, bomb: Bomb) -> str:
    """Lays a document into Redis as if the door had let it through."""
    kind = {"csv": "csv", "jsonl": "jsonl", "txt": "text"}[bomb.filename.rpartition(".")[2]]
    given = [bomb.fields[name] for name in ("columns", "fields") if name in bomb.fields]
    names = [name for names in given for name in names.split(",")]
    encoding = bomb.fields.get("encoding", "utf-8")
    upload = Upload(bomb.filename, kind, encoding, "", names, MODEL, "en", "ja", len(bomb.body))
    document_id = desk.documents.new_id()
    await desk.documents.create(TENANT, document_id, upload, bomb.body, 1)
    desk.enqueue(document_id)
    return document_id


async def test_the_document_worker_survives_every_bomb(
    desk: Desk, model_worker: ModelWorker, redis_server: RedisServer
) -> None:
    with document_process(redis_server.url, *LIMITS) as process:
        before = resident_mib(process.process.pid)
        for name, bomb in BOMBS.items():
            if name in AT_THE_DOOR_ALONE:
                continue
            document = await until(desk, await plant(desk, bomb), state="failed")
            assert document.attempts == 1, name
            error: Any = document.ending and document.ending.error
            if bomb.code != "bad_encoding":
                assert (error.code, bomb.limit in error.detail) == (bomb.code, True), name
        sound = await until(desk, await desk.submit(b"one\n"), state="done")
        assert sound.done == 1
        growth = resident_mib(process.process.pid) - before
        assert growth < GROWTH_MIB
        assert process.process.poll() is None
