"""The checks that containers are asked by, on a real server."""

import socket

import pytest
from rq import Queue, Worker

from broker.consumer import Consumer
from broker.documents import QUEUE
from broker.settings import BrokerSettings
from broker.wire import WorkerEntry
from document_worker import health as document_health
from inference_worker import health
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
