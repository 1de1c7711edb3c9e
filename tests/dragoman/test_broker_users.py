"""``dragoman broker users``, and the whole service on a server that knows only these users: keys,
translation, jobs, documents; with no password in a process list or a log."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from broker import users
from dragoman.__main__ import FAILED
from tests.api.stage import Worker, api_process, body
from tests.broker.test_users import settings_of
from tests.document_worker.stage import document_process
from tests.dragoman.test_main import Capture, run
from tests.redis_server import RedisServer, wait_until


@pytest.fixture
def folder(tmp_path: Path, capfd: Capture) -> Path:
    folder = tmp_path / "users"
    assert run("broker", "users", str(folder)) == 0
    assert str(folder / users.ACL_FILE) in capfd.readouterr().out
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[RedisServer]:
    made = RedisServer(extra=("--aclfile", str(folder / users.ACL_FILE))).start()
    yield made
    made.stop()


def as_user(folder: Path, name: str) -> tuple[str, ...]:
    password = str(folder / f"{name}.password")
    return "--redis-user", f"dragoman-{name}", "--redis-password-file", password


def rq_user(folder: Path) -> tuple[str, ...]:
    return "--rq-user", "dragoman-rq", "--rq-password-file", str(folder / "rq.password")


def test_a_folder_that_cannot_be_made(tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "file").write_text("")
    assert run("broker", "users", str(tmp_path / "file")) == FAILED
    assert "file" in capfd.readouterr().err


@pytest.mark.slow
def test_the_service_under_its_users(
    folder: Path,
    server: RedisServer,
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("k" * 48)
    operator = "--redis-url", server.url, *as_user(folder, "operator")
    assert run("broker", "init", *operator) == 0
    for name, value in zip(operator[2::2], operator[3::2], strict=True):
        monkeypatch.setenv("DRAGOMAN_" + name[2:].upper().replace("-", "_"), value)
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", server.url)
    capfd.readouterr()
    assert run("keys", "create", "acme", "--key-secret-file", str(secret)) == 0
    headers = {"Authorization": f"Bearer {capfd.readouterr().out.strip()}"}
    assert run("keys", "quota", "acme", "--requests-per-s", "1000") == 0
    api = (*as_user(folder, "api"), *rq_user(folder), "--key-secret-file", str(secret))
    documents = (*as_user(folder, "documents"), *rq_user(folder))
    with (
        Worker(settings_of(server, folder, "worker")),
        api_process(server.url, *api) as served,
        document_process(server.url, *documents) as worked,
        httpx.Client(base_url=served.url, headers=headers, timeout=120) as client,
    ):
        day = datetime.now(UTC).date()
        answer = client.post("/translation", json=body("one"))
        assert answer.json() == {"result": [{"id": "0", "text": "eno"}]}
        job = client.post("/jobs", json=body("two")).headers["location"]
        assert client.get(f"{job}?wait=60").json()["state"] == "done"
        assert "event: end" in client.get(f"{job}/events").text
        used = client.get("/usage").json()["today"]["requests"]
        assert used == 2 or datetime.now(UTC).date() != day
        assert client.get("/readyz?workers=1").status_code == 200
        assert "dragoman_broker_up 1" in client.get("/metrics").text
        files = {"file": ("notes.txt", b"three", "text/plain")}
        taken = client.post("/documents", files=files, data={"source": "en", "target": "ja"})
        document = taken.headers["location"]
        wait_until(
            lambda: client.get(document).json()["state"] == "done",
            description="the document is translated",
        )
        assert client.get(f"{document}/result").text == "eerht"
        assert client.delete(document).status_code == 204
        for pid in (served.pid, worked.process.pid):
            command = Path(f"/proc/{pid}/cmdline").read_text()
            environment = Path(f"/proc/{pid}/environ").read_text()
            for path in folder.glob("*.password"):
                assert path.read_text().strip() not in command + environment
    logs = served.log + worked.log
    assert "NOPERM" not in logs
    assert "no permission" not in logs.lower()
    for path in folder.glob("*.password"):
        assert path.read_text().strip() not in logs
