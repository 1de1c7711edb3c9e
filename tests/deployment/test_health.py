"""The checks that containers are asked by, on a real server."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue, Worker

from broker import functions, users
from broker.consumer import Consumer
from broker.document_queue import QUEUE, connect_queue
from broker.document_settings import DocumentSettings
from broker.settings import BrokerSettings
from broker.wire import WorkerEntry
from document_worker import health as document_health
from inference_worker import health
from tests.broker.test_users import settings_of
from tests.redis_server import RedisServer


def entry(worker: str) -> WorkerEntry:
    return WorkerEntry(
        id=worker, model="small", device="cpu", engine="test", slots=1, rate=0.0, completed=0,
        started_ms=0, seen_ms=0,
    )  # fmt: skip


def test_a_worker_is_heard_from_its_first_heartbeat_until_it_retires(
    broker_settings: BrokerSettings,
) -> None:
    consumer = Consumer(broker_settings, "small")
    consumer.worker = "pod-7-1-abc"
    consumer.prepare()
    assert not health.heard(broker_settings, "pod-7")
    consumer.heartbeat(entry(consumer.worker), 8)
    assert health.heard(broker_settings, "pod-7")
    assert not health.heard(broker_settings, "pod")
    assert not health.heard(broker_settings, "pod-8")
    consumer.retire()
    consumer.close()
    assert not health.heard(broker_settings, "pod-7")


def test_the_command_tells_by_its_status(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", redis_server.url)
    assert health.main() == 1
    assert "no heartbeat" in capsys.readouterr().err
    assert document_health.main() == 1
    assert "not registered" in capsys.readouterr().err
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", "redis://127.0.0.1:1/0")
    assert health.main() == 1
    assert document_health.main() == 1
    assert "dragoman-documents: " in capsys.readouterr().err


def test_a_document_worker_is_heard_while_it_is_registered(redis_server: RedisServer) -> None:
    client = redis_server.client
    worker = Worker([Queue(QUEUE, connection=client, serializer="json")], connection=client,
                    serializer="json")  # fmt: skip
    host = socket.gethostname()
    assert not document_health.heard(client, host)
    worker.register_birth()  # type: ignore[no-untyped-call]
    assert document_health.heard(client, host)
    assert not document_health.heard(client, "elsewhere")
    worker.register_death()  # type: ignore[no-untyped-call]
    client.flushall()


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """A server that knows the users of the tiers alone; their passwords are in ``tmp_path``."""
    users.write(tmp_path)
    server = RedisServer(extra=("--aclfile", str(tmp_path / users.ACL_FILE))).start()
    functions.init(settings_of(server, tmp_path, "operator"))
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", server.url)
    yield server
    server.stop()


def become(monkeypatch: pytest.MonkeyPatch, folder: Path, variable: str, user: str) -> None:
    monkeypatch.setenv(f"DRAGOMAN_{variable}_USER", f"dragoman-{user}")
    monkeypatch.setenv(f"DRAGOMAN_{variable}_PASSWORD_FILE", str(folder / f"{user}.password"))


def test_a_worker_is_heard_as_its_user(
    guarded: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    become(monkeypatch, tmp_path, "REDIS", "worker")
    consumer = Consumer(settings_of(guarded, tmp_path, "worker"), "small")
    consumer.prepare()
    consumer.heartbeat(entry(consumer.worker), 8)
    assert health.main() == 0, capsys.readouterr().err
    consumer.close()


def test_a_document_worker_is_heard_as_its_users(
    guarded: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    become(monkeypatch, tmp_path, "REDIS", "documents")
    become(monkeypatch, tmp_path, "RQ", "rq")
    password = str(tmp_path / "rq.password")
    client = connect_queue(
        settings_of(guarded, tmp_path, "documents"), DocumentSettings("", "dragoman-rq", password)
    )
    worker = Worker([Queue(QUEUE, connection=client, serializer="json")], connection=client,
                    serializer="json")  # fmt: skip
    worker.register_birth()  # type: ignore[no-untyped-call]
    assert document_health.main() == 0, capsys.readouterr().err
    client.close()
