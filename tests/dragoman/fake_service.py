"""A small real HTTP server that speaks the contract and "translates" into capitals."""

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Scripted:
    """An answer given instead of the usual one; ``drop`` breaks the connection without any."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


class FakeService:
    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.script: deque[Scripted] = deque()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, str] = {}
        self.held = threading.Event()  # while not set, jobs do not finish
        self.held.set()
        handler = type("Handler", (_Handler,), {"service": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.held.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def calls(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    def make_job(self, body: Any, key: str = "") -> dict[str, Any]:
        if key and key in self.keys:
            return self.jobs[self.keys[key]]
        job_id = f"{len(self.jobs):034x}"
        records = body["payload"]["records"]
        self.jobs[job_id] = {
            "id": job_id,
            "state": "queued",
            "total": len(records),
            "done": 0,
            "estimatedSeconds": None,
            "result": [translated(record) for record in records],
        }
        if key:
            self.keys[key] = job_id
        return self.jobs[job_id]

    def view(self, job: dict[str, Any], wait_s: float = 0) -> dict[str, Any]:
        if job["state"] == "queued" and self.held.wait(wait_s):
            job["state"], job["done"] = "done", job["total"]
        finished = job["result"] if job["state"] == "done" else []
        return job | {"result": finished}


def translated(record: dict[str, Any]) -> dict[str, Any]:
    if "poison" in record["text"]:
        return {"id": record["id"], "error": {"code": "poison", "detail": "it cannot be done"}}
    return {"id": record["id"], "text": record["text"].upper()}


class _Handler(BaseHTTPRequestHandler):
    service: FakeService
    protocol_version = "HTTP/1.1"
    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        service, parts = self.service, urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.command, parts.path, parse_qs(parts.query), headers, body)
        service.seen.append(seen)
        if service.script:
            scripted = service.script.popleft()
            if scripted.drop:
                self.close_connection = True
                return
            self._answer(scripted.status, scripted.body, scripted.headers)
            return
        self._usual(seen)

    do_GET = do_POST = do_DELETE = _handle

    def _usual(self, seen: Seen) -> None:
        service = self.service
        match (seen.method, *seen.path.strip("/").split("/")):
            case ("POST", "translation"):
                job = service.make_job(seen.body)
                wait_s = float(seen.headers.get("prefer", "wait=300").rpartition("=")[2])
                view = service.view(job, min(wait_s, 0.05))
                if view["state"] == "queued":
                    self._answer(202, view, {"Location": f"/jobs/{job['id']}"})
                else:
                    self._answer(200, {"result": view["result"]})
            case ("POST", "jobs"):
                job = service.make_job(seen.body, seen.headers.get("idempotency-key", ""))
                ticket = {name: value for name, value in job.items() if name != "result"}
                self._answer(202, ticket, {"Location": f"/jobs/{job['id']}"})
            case ("GET", "jobs", job_id) if job_id in service.jobs:
                wait_s = float(seen.query.get("wait", ["0"])[0])
                self._answer(200, service.view(service.jobs[job_id], min(wait_s, 0.05)))
            case ("DELETE", "jobs", job_id) if job_id in service.jobs:
                service.jobs[job_id]["state"] = "cancelled"
                self._answer(200, service.view(service.jobs[job_id]))
            case ("GET", "jobs", job_id, "events") if job_id in service.jobs:
                self._events(service.jobs[job_id])
            case ("GET", "languages"):
                names = [{"code": "en", "name": "English"}, {"code": "ja", "name": "Japanese"}]
                self._answer(200, {"model": "small", "revision": "1", "languages": names})
            case _:
                self._answer(404, problem(404, "not_found", "There is no such thing."))

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        media = "application/problem+json" if status >= 400 else "application/json"
        for name, value in ({"Content-Type": media} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        try:
            self.wfile.write(raw)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _events(self, job: dict[str, Any]) -> None:
        """Breaks off after one record when the script was asked for that (state "breaking")."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b": hello\n\n")
        for record in job["result"]:
            self.wfile.write(f"event: record\ndata: {json.dumps(record)}\n\n".encode())
            if job.pop("breaks", False):
                return
        self.wfile.write(b'event: end\ndata: {"state": "done"}\n\n')


def problem(status: int, code: str, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": "No", "status": status, "code": code, "detail": detail}
