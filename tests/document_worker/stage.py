"""What the document tests are played on: documents stored and enqueued as the API does it, document
worker processes, and a model worker that answers each text in capitals."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rq import Queue, Retry

from broker.consumer import Consumer
from broker.document_queue import QUEUE, TASK
from broker.document_settings import DocumentSettings
from broker.documents import Document, Documents, Upload
from broker.settings import BrokerSettings
from broker.wire import Completion, Delivery, Failure, Outcome, WorkerEntry
from document_formats.encodings import Encoding
from document_formats.kinds import BY_NAME
from document_formats.pieces import count
from tests.redis_server import RedisServer, wait_until
from tests.waiting import reached

ROOT = Path(__file__).parents[2]
MODEL = "small"
TENANT = "default"
SETTINGS = DocumentSettings(document_ttl_s=600, document_deadline_s=600)


def shout(delivery: Delivery) -> Outcome:
    """A translation anybody can check; an error for the word poison."""
    text = delivery.record.text
    if "poison" in text:
        return Outcome(error=Failure("poison", "This record breaks every worker it meets."))
    return Outcome(text=text.upper())


def echo(delivery: Delivery) -> Outcome:
    return Outcome(text=delivery.record.text)


class ModelWorker:
    """A model worker thread. ``hold_after(n)`` makes it stop reading once it has seen n texts."""

    def __init__(
        self,
        settings: BrokerSettings,
        translate: Callable[[Delivery], Outcome] = shout,
        batch: int = 64,
    ) -> None:
        self._consumer = Consumer(settings, MODEL)
        self._translate = translate
        self._batch = batch
        self._stopped = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._limit: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.held = threading.Event()
        self.seen: list[str] = []

    def __enter__(self) -> "ModelWorker":
        self._consumer.prepare()
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._going.set()
        self._thread.join(60)
        self._consumer.close()
        assert not self._thread.is_alive()

    def hold_after(self, texts: int) -> None:
        self._limit = texts
        if not texts:
            self._going.clear()

    def resume(self) -> None:
        self._limit = None
        self._going.set()

    def _beat(self) -> None:
        entry = WorkerEntry(self._consumer.worker, MODEL, "cpu", "test", self._batch, 0, 0, 0, 0)
        self._consumer.heartbeat(entry, self._batch)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._going.wait()
            self._beat()
            self._serve(self._consumer.read(self._batch, self._batch, 20))

    def _serve(self, deliveries: list[Delivery]) -> None:
        verdicts = self._consumer.begin(deliveries)
        completions = []
        for delivery, verdict in zip(deliveries, verdicts, strict=True):
            if verdict == "go":
                self.seen.append(delivery.record.text)
                completions.append(Completion(delivery, self._translate(delivery)))
            elif verdict == "over":
                self._consumer.discard([delivery])
            else:
                outcome = Outcome(error=Failure(verdict, f"The record is {verdict}."))
                completions.append(Completion(delivery, outcome))
        self._consumer.complete(completions)
        if self._limit is not None and len(self.seen) >= self._limit:
            self._limit = None
            self._going.clear()
            self.held.set()


class Desk:
    """Takes documents in and looks at them, as the API does."""

    def __init__(
        self, broker: BrokerSettings, server: RedisServer, settings: DocumentSettings = SETTINGS
    ) -> None:
        self.documents = Documents(broker, settings)
        self.queue = Queue(QUEUE, connection=server.client, serializer="json")

    async def __aenter__(self) -> "Desk":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.documents.close()

    async def submit(
        self,
        body: bytes,
        kind: str = "text",
        names: tuple[str, ...] = (),
        encoding: Encoding | None = None,
    ) -> str:
        document_id = await self.store(body, kind, names, encoding)
        self.enqueue(document_id)
        return document_id

    async def store(
        self,
        body: bytes,
        kind: str = "text",
        names: tuple[str, ...] = (),
        encoding: Encoding | None = None,
        **quota: Any,
    ) -> str:
        encoding = encoding or Encoding("utf-8")
        upload = Upload(
            "notes.txt", kind, encoding.name, encoding.mark.hex(), list(names), MODEL, "en", "ja",
            len(body), **quota,
        )  # fmt: skip
        total = count(BY_NAME[kind].split(encoding.decode(body), names))
        document_id = self.documents.new_id()
        await self.documents.create(TENANT, document_id, upload, body, total)
        return document_id

    def enqueue(self, document_id: str) -> None:
        self.queue.enqueue_call(
            TASK,
            args=(TENANT, document_id),
            job_id=document_id,
            timeout=600,
            result_ttl=0,
            failure_ttl=60,
            description="document",
            retry=Retry(max=20),
        )

    async def read(self, document_id: str) -> Document:
        document = await self.documents.read(TENANT, document_id)
        assert document is not None
        return document


class DocumentProcess:
    """A ``dragoman-documents`` in a process of its own."""

    def __init__(self, redis_url: str, *flags: str, environ: dict[str, str] | None = None) -> None:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")
        }
        command = [sys.executable, "-m", "document_worker", "--redis-url", redis_url, *flags]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={"DRAGOMAN_REDIS_TIMEOUT_S": "20"} | inherited | (environ or {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return "dragoman-documents ready" in self.log

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [
            int(child)
            for task in tasks.iterdir()
            for child in (task / "children").read_text().split()
        ]

    def kill(self, *, whole: bool) -> None:
        """kill -9: the process alone, or with the fork that works on a document."""
        self.process.send_signal(signal.SIGSTOP)  # it is not to see its fork die
        for pid in [*(self.children() if whole else ()), self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = 120) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(60)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()


@contextmanager
def document_process(
    redis_url: str, *flags: str, environ: dict[str, str] | None = None
) -> Iterator[DocumentProcess]:
    """A ready document worker, stopped at the end if the test has not done so."""
    usual = ("--document-lease-s", "3", "--document-ttl-s", "600", "--document-deadline-s", "600")
    process = DocumentProcess(redis_url, *usual, *flags, environ=environ)
    try:
        wait_until(lambda: process.ready, description="the document worker is ready")
        yield process
    finally:
        process.stop()


async def until(desk: Desk, document_id: str, **expected: Any) -> Document:
    """The document once its fields have these values."""

    async def reads_so() -> Document | None:
        document = await desk.read(document_id)
        found = {name: getattr(document, name) for name in expected}
        return document if found == expected else None

    found: Document = await reached(
        reads_so, description=f"the document is {expected}", timeout_s=120
    )
    return found


def key_of(document_id: str, suffix: str = "") -> str:
    return f"dragoman:{{0}}:document:{TENANT}:{document_id}{suffix}"


def rq_text(server: RedisServer) -> str:
    """Everything RQ keeps, as text."""
    client: Any = server.client
    found = []
    for key in client.scan_iter("rq:*"):
        kind = client.type(key)
        if kind == b"hash":
            found.append(repr(client.hgetall(key)))
        elif kind == b"stream":
            found.append(repr(client.xrange(key)))
    return "\n".join(found)
