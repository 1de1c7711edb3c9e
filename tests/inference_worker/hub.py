"""A model hub on the loopback interface: as much of one as fetching a checkpoint takes."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves the files of ``folder`` as repository ``name`` at ``COMMIT``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.fetched: list[str] = []
        self.url = ""

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a GET."""
        path = path.partition("?")[0]
        if path.startswith(f"/api/models/{self.name}/tree/"):
            return self._json(
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": etag(p)}
                    for p in self.files()
                ]
            )
        if path in (f"/api/models/{self.name}", f"/api/models/{self.name}/revision/{COMMIT}"):
            siblings = [{"rfilename": p.name} for p in self.files()]
            return self._json({"id": self.name, "sha": COMMIT, "siblings": siblings})
        if path.startswith(f"/api/models/{self.name}/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        base = f"/{self.name}/resolve/{COMMIT}/"
        if path.startswith(base) and (self.folder / path.removeprefix(base)).is_file():
            file = self.folder / path.removeprefix(base)
            return 200, {"ETag": f'"{etag(file)}"', "X-Repo-Commit": COMMIT}, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _json(self, value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            status, headers, body = hub.answer(self.path)
            if with_body and "/resolve/" in self.path and status == 200:
                hub.fetched.append(self.path.rpartition("/")[2])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
