"""Documents over HTTP: what is taken, what is refused and how, progress, download, deletion."""

import codecs
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.app import create_app
from api.settings import ApiSettings
from broker.document_settings import DocumentSettings
from broker.documents import MAX_DOCUMENT_BYTES
from broker.settings import BrokerSettings
from tests.api.stage import announce, living
from tests.document_worker.stage import ModelWorker, document_process, echo
from tests.redis_server import RedisServer
from tests.waiting import reached

LANGUAGES = {"source": "en", "target": "ja"}
SUBTITLES = b"1\r\n00:00:01,000 --> 00:00:02,500\r\nHello.\r\nWho is there?\r\n\r\n"
LINES = b'{"id": 1, "t": "one"}\n{"id": 2, "t": "caf\\u00e9", "u": 1.50}\n'


@pytest.fixture(autouse=True)
def _announced(broker_settings: BrokerSettings) -> None:
    announce(broker_settings)


async def post(
    client: httpx.AsyncClient, body: bytes, filename: str = "notes.txt", **fields: Any
) -> httpx.Response:
    files = {"file": (filename, body)}
    return await client.post("/documents", files=files, data=LANGUAGES | fields)


async def ended(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    job: dict[str, Any] = {}

    async def over() -> bool:
        job.update((await client.get(location)).json())
        return job["state"] not in ("queued", "running")

    await reached(over, description="the document has ended")
    return job


async def test_an_upload_is_taken_and_waits(
    client: httpx.AsyncClient, redis_server: RedisServer
) -> None:
    answer = await post(client, "one\r\nzwei und dreißig\r\n".encode("cp1252"), "my notes.txt")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/documents/{job['id']}"
    assert (job["state"], job["total"], job["done"], job["failed"]) == ("queued", 2, 0, 0)
    assert (job["format"], job["source"], job["target"]) == ("text", "en", "ja")
    assert (job["filename"], job["size"]) == ("my notes.ja.txt", 23)
    assert job["createdAt"] < job["deadlineAt"] < job["expiresAt"]
    assert (await client.get(answer.headers["location"])).json() == job

    early = await client.get(f"{answer.headers['location']}/result")
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")
    assert early.headers["retry-after"] == "2"
    record = redis_server.client.hgetall(f"rq:job:{job['id']}")
    assert record[b"description"] == f"document {job['id']}".encode()
    assert 0 < redis_server.client.ttl(f"rq:job:{job['id']}") <= 2 * 86_400


@pytest.mark.slow
async def test_every_format_comes_back_byte_for_byte(
    client: httpx.AsyncClient, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    uploads: list[tuple[str, bytes, dict[str, str], str]] = [
        ("notes.txt", "  Grüße\r\n\r\nzwei".encode("cp1252"), {"encoding": "cp1252"}, "text/plain"),
        ("b.txt", codecs.BOM_UTF16_LE + "one\n".encode("utf-16-le"), {}, "text/plain"),
        ("movie.srt", codecs.BOM_UTF8 + SUBTITLES, {}, "application/x-subrip"),
        ("t.csv", b'id;"title"\r\n1;"a ""b"""\r\n2;c\r\n', {"columns": "title"}, "text/csv"),
        ("d.jsonl", LINES, {"fields": "t"}, "application/jsonl"),
    ]
    with ModelWorker(broker_settings, echo), document_process(redis_server.url):
        for filename, body, fields, media_type in uploads:
            location = (await post(client, body, filename, **fields)).headers["location"]
            job = await ended(client, location)
            assert (job["state"], job["done"]) == ("done", job["total"])
            assert job["result"] == f"{location}/result"
            result = await client.get(job["result"])
            assert result.status_code == 200
            assert result.content == body
            assert result.headers["content-type"] == f"{media_type}; charset={job['encoding']}"
            stem, _, extension = filename.partition(".")
            assert f'filename="{stem}.ja.{extension}"' in result.headers["content-disposition"]
            assert result.headers["x-content-type-options"] == "nosniff"
            assert redis_server.client.ttl(f"dragoman:{{0}}:document:default:{job['id']}") > 0

            assert (await client.delete(location)).status_code == 204
            assert (await client.get(location)).status_code == 404
            assert (await client.get(job["result"])).status_code == 404
    assert not list(redis_server.client.scan_iter("dragoman:*:document:*"))


@pytest.mark.slow
async def test_what_fails_is_reported_by_line(
    client: httpx.AsyncClient, broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    with ModelWorker(broker_settings), document_process(redis_server.url):
        body = b'{"t": "one"}\n{"t": "poison"}\n\n{"t": "half \\ud83d"}\n'
        location = (await post(client, body, "d.jsonl", fields="t")).headers["location"]
        job = await ended(client, location)
        assert (job["state"], job["total"], job["done"], job["failed"]) == ("done", 3, 3, 2)
        assert [(flaw["line"], flaw["code"]) for flaw in job["report"]] == [
            (2, "poison"),
            (4, "invalid_unicode"),
        ]
        result = (await client.get(job["result"])).content
        assert result == b'{"t": "ONE"}\n{"t": "poison"}\n\n{"t": "half \\ud83d"}\n'

        location = (await post(client, b"poison\n")).headers["location"]
        job = await ended(client, location)
        assert (job["state"], job["error"]["code"]) == ("failed", "poison")
        answer = await client.get(f"{location}/result")
        assert (answer.status_code, answer.json()["code"]) == (409, "no_result")

        # Capitals that the encoding of the upload lacks: ß becomes SS, but ÿ becomes Ÿ.
        body = "ÿ a\n".encode("latin-1")
        location = (await post(client, body, encoding="latin-1")).headers["location"]
        job = await ended(client, location)
        assert job["encoding"] == "utf-8"
        assert (await client.get(job["result"])).text == "Ÿ A\n"


async def test_delete_cancels_what_is_open(
    client: httpx.AsyncClient, redis_server: RedisServer
) -> None:
    location = (await post(client, b"one\n")).headers["location"]
    answer = await client.delete(location)
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert redis_server.client.llen("rq:queue:documents") == 0
    (key,) = redis_server.client.scan_iter("dragoman:*:document:*")
    assert 0 < redis_server.client.ttl(key) <= 86_400
    answer = await client.get(f"{location}/result")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_result")
    assert (await client.delete(location)).status_code == 204
    assert (await client.delete(location)).status_code == 404


@pytest.mark.parametrize("path", ["", "/result"])
async def test_unknown_malformed_and_foreign_ids_look_alike(
    client: httpx.AsyncClient, redis_server: RedisServer, path: str
) -> None:
    location = (await post(client, b"one\n")).headers["location"]
    document_id = location.rpartition("/")[2]
    for key in redis_server.client.scan_iter(f"dragoman:*:document:default:{document_id}*"):
        redis_server.client.rename(key, key.replace(b"default", b"other"))
    bodies = set()
    for name in (document_id, "0" * 34, "f" * 34, "x", "*"):
        answer = await client.get(f"/documents/{name}{path}")
        assert answer.status_code == 404
        bodies.add(answer.text)
    assert len(bodies) == 1
    assert (await client.delete(location)).text in bodies


@pytest.mark.parametrize(
    ("filename", "body", "fields", "status", "code", "field", "line"),
    [
        ("a.txt", b"x", {"source": "xx"}, 422, "unknown_language", "source", None),
        ("a.txt", b"x", {"target": "en"}, 422, "same_language", "target", None),
        ("a.txt", b"x", {"target": ""}, 422, "missing_field", "target", None),
        ("a.txt", b"x", {"target": ["ja", "de"]}, 422, "invalid_value", "target", None),
        ("a.docx", b"x", {}, 415, "unsupported_type", "file", None),
        ("a.docx", b"x", {"format": "word"}, 422, "unknown_format", "format", None),
        ("a.txt", b"", {}, 422, "empty_file", "file", None),
        ("a.txt", b"PK\x03\x04\x00\x00", {}, 422, "bad_encoding", "file", None),
        ("a.txt", b"\xff\xff", {"encoding": "utf-8"}, 422, "bad_encoding", "encoding", None),
        ("a.txt", b"x", {"encoding": "klingon"}, 422, "bad_encoding", "encoding", None),
        ("a.txt", codecs.BOM_UTF8 + b"a\n\xff", {}, 422, "bad_encoding", "file", 2),
        ("a.jsonl", b'{"t":"x"}\n{"t":"\xff"}', {"fields": "t"}, 422, "bad_encoding", "file", 2),
        ("a.txt", b"x", {"columns": "t"}, 422, "unexpected_field", "columns", None),
        ("a.csv", b"t\nx\n", {}, 422, "missing_field", "columns", None),
        ("a.csv", b"t\nx\n", {"columns": "t,u"}, 422, "unknown_column", "columns[1]", 1),
        ("a.csv", b't\n"x\n', {"columns": "t"}, 422, "malformed_csv", "file", 2),
        ("a.jsonl", b'{"t":"x"}\n{"t":', {"fields": "t"}, 422, "malformed_json", "file", 2),
        ("a.jsonl", b'{"t":"x"}\n', {"fields": ["t", "u"]}, 422, "unknown_field", "fields[1]",
         None),
        ("a.srt", b"1\n00:00:01 -> 2\nHi\n", {}, 422, "malformed_subrip", "file", 1),
    ],
)  # fmt: skip
async def test_bad_uploads_are_told_what_to_mend(
    client: httpx.AsyncClient,
    redis_server: RedisServer,
    filename: str,
    body: bytes,
    fields: dict[str, Any],
    status: int,
    code: str,
    field: str,
    line: int | None,
) -> None:
    answer = await post(client, body, filename, **fields)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"]) == (status, code)
    assert (problem["field"], problem.get("line")) == (field, line)
    assert "klingon" not in answer.text
    assert not list(redis_server.client.scan_iter("*document*"))


async def test_bodies_that_are_no_upload(client: httpx.AsyncClient) -> None:
    answer = await client.post("/documents", json={})
    assert (answer.status_code, answer.json()["field"]) == (415, "Content-Type")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await client.post("/documents", content=b"--y\r\n\r\n", headers=headers)
    assert answer.status_code in (400, 422)
    headers = {"Content-Type": "multipart/form-data"}
    answer = await client.post("/documents", content=b"--y\r\n\r\n", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_multipart")
    answer = await client.post("/documents", files={"other": b"x"}, data=LANGUAGES)
    assert (answer.status_code, answer.json()["field"]) == (422, "file")
    answer = await client.post("/documents", files=[("file", b"x"), ("file", b"y")], data=LANGUAGES)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_multipart")


async def test_the_size_of_a_document_is_bounded(client: httpx.AsyncClient) -> None:
    answer = await post(client, b"12345678\n" * (MAX_DOCUMENT_BYTES // 9))
    assert answer.status_code == 202
    answer = await post(client, b"x" * (MAX_DOCUMENT_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "document_too_large")
    answer = await post(client, b"x" * (MAX_DOCUMENT_BYTES * 2))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_the_queue_of_documents_is_bounded(broker_settings: BrokerSettings) -> None:
    app = create_app(
        broker_settings, ApiSettings(), document_settings=DocumentSettings(max_queued_documents=2)
    )
    async with living(app) as client:
        answers = [await post(client, b"one\n") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert answers[2].headers["retry-after"] == "30"


async def test_without_its_queue_nothing_is_kept(
    broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    for url in ("redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1"):
        app: FastAPI = create_app(
            broker_settings, ApiSettings(), document_settings=DocumentSettings(rq_url=url)
        )
        async with living(app) as client:
            assert (await post(client, b"one\n")).status_code == 503
            assert (await client.get("/healthz")).status_code == 200
    assert not list(redis_server.client.scan_iter("*document*"))


@pytest.mark.parametrize(
    ("sent", "ascii_name", "encoded"),
    [
        ("été.txt", "_t_.ja.txt", "%C3%A9t%C3%A9.ja.txt"),
        ("../../etc/passwd.txt", "passwd.ja.txt", "passwd.ja.txt"),
        ('a"b\\c.txt', "c.ja.txt", "c.ja.txt"),
    ],
)
@pytest.mark.slow
async def test_result_names(
    client: httpx.AsyncClient, redis_server: RedisServer, sent: str, ascii_name: str, encoded: str
) -> None:
    answer = await post(client, b"12\n", sent)
    job = answer.json()
    with document_process(redis_server.url):
        await ended(client, answer.headers["location"])
        result = await client.get(f"/documents/{job['id']}/result")
    assert result.headers["content-disposition"] == (
        f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{encoded}"
    )


async def test_the_routes_are_in_the_document(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert set(paths["/documents/{id}"]) == {"get", "delete"}
    form = paths["/documents"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file", "source", "target"]
