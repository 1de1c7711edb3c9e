"""What the API tests are played on: an app with its lifespan, API processes, and a worker that
turns every text around instead of translating it."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.process import bind
from api.settings import ApiSettings
from broker.consumer import Consumer
from broker.errors import BrokerUnavailable
from broker.settings import BrokerSettings
from broker.wire import (
    Completion,
    Delivery,
    Details,
    Failure,
    ModelEntry,
    Outcome,
    WorkerEntry,
)
from tests.waiting import reached

ROOT = Path(__file__).parents[2]
MODEL = "small"
LANGUAGES = ["de", "en", "es", "fr", "ja", "ko", "zh"]
ENTRY = ModelEntry(MODEL, "r1", LANGUAGES, 128)
BATCH = 64
BLOCK_MS = 20


def body(*texts: str, source: str = "en", target: str = "ja") -> dict[str, Any]:
    """A request with these texts; ids count from 0."""
    records = [{"id": str(index), "text": text} for index, text in enumerate(texts)]
    return {"payload": {"fromLang": source, "records": records, "toLang": target}}


def announce(settings: BrokerSettings) -> None:
    """The model's entry, as left behind by a worker that is gone."""
    consumer = Consumer(settings, MODEL)
    consumer.prepare()
    consumer.announce(ENTRY)
    consumer.close()


def turned(delivery: Delivery) -> Outcome:
    """The outcome of a record: errors for a few words, blank texts as they are."""
    text = delivery.record.text
    if text == "poison":
        return Outcome(error=Failure("poison", "This record breaks every worker it meets."))
    if text == "late":
        return Outcome(error=Failure("expired", "The deadline passed."))
    details = Details(MODEL, "w1", 1, 2, 1.5, 0.5, 20.0, ["unknown piece"])
    return Outcome(text=text[::-1] if text.strip() else text, details=details)


class Worker:
    """A worker thread. ``hold`` makes it read nothing until ``resume``."""

    def __init__(self, settings: BrokerSettings, batch: int = BATCH) -> None:
        self._consumer = Consumer(settings, MODEL)
        self._batch = batch
        self._going = threading.Event()
        self._going.set()
        self._stopped = threading.Event()
        self._parked = threading.Event()
        self._left: int | None = None
        self.held = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: list[Delivery] = []

    def __enter__(self) -> "Worker":
        self._consumer.prepare()
        self._consumer.announce(ENTRY)
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._going.set()
        self._thread.join(60)
        self._consumer.close()
        assert not self._thread.is_alive()

    def hold(self) -> None:
        """Returns when the thread reads no more."""
        self._parked.clear()
        self._going.clear()
        if threading.current_thread() is not self._thread:
            assert self._parked.wait(60)

    def hold_after(self, records: int) -> None:
        """Holds once so many records are seen, and sets ``held``."""
        self._left = records

    def resume(self, records: int | None = None) -> None:
        """Goes on, until so many records are seen."""
        self._left = records
        self._going.set()

    def beat(self) -> None:
        entry = WorkerEntry(
            *(self._consumer.worker, MODEL, "cpu", "test", self._batch, 0, 0, 0, 0),
            sentences=7,
            cached=2,
            coalesced=1,
            warnings={"mended": 3},
        )
        self._consumer.heartbeat(entry, self._batch)

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._going.is_set():
                self._parked.set()
                self._going.wait()
            try:
                self.beat()
                self._serve(self._consumer.read(self._batch, self._batch, BLOCK_MS))
            except BrokerUnavailable:
                self._stopped.wait(0.05)

    def _serve(self, deliveries: Sequence[Delivery]) -> None:
        verdicts = self._consumer.begin(deliveries)
        completions = []
        for delivery, verdict in zip(deliveries, verdicts, strict=True):
            self.seen.append(delivery)
            if verdict == "go":
                completions.append(Completion(delivery, turned(delivery)))
            elif verdict == "over":
                self._consumer.discard([delivery])
            else:
                outcome = Outcome(error=Failure(verdict, f"The record is {verdict}."))
                completions.append(Completion(delivery, outcome))
        if completions:
            self._consumer.complete(completions)
        if self._left is not None and len(self.seen) >= self._left:
            self._left = None
            self.hold()
            self.held.set()


@asynccontextmanager
async def living(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app in this process, its lifespan around it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://api") as client,
    ):
        yield client


@asynccontextmanager
async def stage(broker: BrokerSettings, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A fresh app and its client."""
    async with living(create_app(broker, ApiSettings(**settings))) as client:
        yield client


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """The URL of an app behind a real uvicorn, in this event loop."""
    config = uvicorn.Config(app, http="httptools", lifespan="on", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0, shared=False) as listener:
        serving = asyncio.ensure_future(server.serve([listener]))
        await reached(lambda: server.started, description="uvicorn listens")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


class Process:
    """A ``dragoman-api`` of its own, ready when entered through ``api_process``."""

    def __init__(self, redis_url: str, *flags: str) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api", "--redis-url", redis_url, "--port", "0", *flags],
            cwd=ROOT,
            env={"DRAGOMAN_DRAIN_S": "0", "DRAGOMAN_REDIS_TIMEOUT_S": "20", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
            if "dragoman-api ready: " in line:
                self.url = line.split("ready: ")[1].strip()
                self._ready.set()
        self._ready.set()

    def await_ready(self) -> "Process":
        assert self._ready.wait(120), self.lines
        assert self.url, self.lines
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait()
            raise

    def wait(self, timeout_s: float = 120) -> int:
        code = self._process.wait(timeout_s)
        self._reader.join(60)
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code


@contextmanager
def api_process(redis_url: str, *flags: str) -> Iterator[Process]:
    """An API in a process of its own, stopped at the end if the test has not done so."""
    process = Process(redis_url, *flags)
    try:
        yield process.await_ready()
    finally:
        process.stop()
