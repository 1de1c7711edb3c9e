"""No text in what operators read: marker texts go through every way in and every way to fail, in
real processes, and are then looked for in all logs, in /metrics and in all that RQ keeps."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from broker.documents import MAX_DOCUMENT_BYTES
from tests.document_worker.stage import key_of, rq_text
from tests.redis_server import RedisServer, wait_until
from tests.security.service import Service, service

pytestmark = pytest.mark.slow

MARKER = "Zwetschgenknödel"  # in every text; never in a log
RAISES = f"{MARKER} raises."  # the engine raises an error that quotes it
REQUEST_ID = "privacy-17"
HEADERS = {"X-Request-Id": REQUEST_ID}


@pytest.fixture
def target(redis_server: RedisServer) -> Iterator[Service]:
    with service(redis_server, fault="quote", text=RAISES) as running:
        yield running


def body(*texts: str, source: str = "en", target: str = "ja") -> dict[str, Any]:
    records = [{"id": f"{MARKER} {index}", "text": text} for index, text in enumerate(texts)]
    return {"payload": {"fromLang": source, "records": records, "toLang": target}}


def ended(client: httpx.Client, location: str) -> dict[str, Any]:
    """A job or a document once it has ended."""
    found: list[dict[str, Any]] = [{}]

    def over() -> bool:
        found[0] = client.get(location).json()
        return found[0]["state"] in ("done", "failed", "cancelled")

    wait_until(over, description=f"{location} has ended", timeout_s=120)
    return found[0]


def translate(client: httpx.Client) -> None:
    """Successes and failures of requests, from the caller's side."""
    sound = client.post("/translation?details=true", json=body(f"{MARKER}.", "Two."))
    assert sound.status_code == 200
    failed = client.post("/translation", json=body(RAISES))
    assert failed.json()["result"][0]["error"]["code"] == "internal"
    late = client.post("/translation", json=body(MARKER), headers={"X-Deadline-Ms": "1"})
    assert late.status_code in (200, 503, 504)
    job = client.post("/jobs", json=body(f"{MARKER}. " * 50, RAISES))
    assert ended(client, job.headers["location"])["failed"] == 1
    assert MARKER in client.get(f"{job.headers['location']}/events").text
    client.delete(job.headers["location"])
    for content in (f'{{"{MARKER}"', f'{{"payload":"{MARKER}\\ud800"}}', f"{MARKER}\xff"):
        refused = client.post("/jobs", content=content.encode("utf-8", "surrogateescape"))
        assert refused.status_code in (400, 422)
    for wrong in (body(MARKER, target=MARKER), body(MARKER, source=MARKER), body(MARKER * 900)):
        assert client.post("/translation", json=wrong).status_code == 422
    assert client.get(f"/{MARKER}?q={MARKER}").status_code == 404
    assert client.get(f"/jobs/{MARKER}").status_code == 404
    assert client.request(MARKER.encode("ascii", "ignore").decode(), "/jobs").status_code == 400


def translate_documents(client: httpx.Client, target: Service) -> None:
    """Successes and failures of documents."""

    def send(text: bytes, name: str = "a.txt", **fields: str) -> httpx.Response:
        data = {"source": "en", "target": "ja"} | fields
        return client.post("/documents", files={"file": (name, text)}, data=data)

    sound = send(f"{MARKER}.\n{RAISES}\n".encode(), f"{MARKER}.txt")
    assert ended(client, sound.headers["location"])["failed"] == 1
    assert MARKER in client.get(f"{sound.headers['location']}/result").text
    assert send(f'{{"{MARKER}'.encode(), "a.jsonl", fields=MARKER).status_code == 422
    assert send(f"a,{MARKER}\n".encode(), "a.csv", columns="none").status_code == 422
    assert send(f"{MARKER}\xff".encode("latin-1"), encoding="utf-8").status_code == 422
    assert send(f"{MARKER}\n".encode() * (MAX_DOCUMENT_BYTES // 15)).status_code == 413
    # One that changes in Redis fails with the text in the worker's hands.
    target.documents.process.send_signal(19)  # SIGSTOP
    broken = send(f"{MARKER}\n".encode()).json()["id"]
    target.redis.client.set(key_of(broken, ":source"), f"{MARKER} \xff".encode("latin-1"), ex=60)
    target.documents.process.send_signal(18)  # SIGCONT
    assert ended(client, f"/documents/{broken}")["error"]["code"] == "internal"


def test_no_text_is_told_to_operators(target: Service) -> None:
    with httpx.Client(base_url=target.api.url, headers=HEADERS, timeout=120) as client:
        translate(client)
        translate_documents(client, target)
        metrics = client.get("/metrics").text
    kept = rq_text(target.redis)
    log = target.log
    for name, told in {"logs": log, "metrics": metrics, "RQ": kept}.items():
        for hidden in (MARKER, ascii(MARKER)[1:-1], MARKER.encode().hex()):
            assert hidden not in told, name
    assert "a step over" in log
    assert "RuntimeError" in log, "the engine's error is told by its type"
    assert "UnicodeDecodeError" in log, "and so is the document worker's"


def test_lines_name_their_request(target: Service) -> None:
    with httpx.Client(base_url=target.api.url, headers=HEADERS, timeout=120) as client:
        assert client.post("/translation", json=body(RAISES)).status_code == 502
    told = "POST /translation 502 "
    wait_until(lambda: told in target.api.log, description="the request is in the log")
    (line,) = [line for line in target.api.lines if told in line]
    assert f"request={REQUEST_ID}" in line
    work = line.partition("work=")[2]
    wait_until(lambda: work in target.worker.output, description="the worker names it as well")
