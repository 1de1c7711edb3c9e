"""What the routes of one API process share: the broker's parties, the model's languages, and the
two bells that ring when the process is asked to stop."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from api.callers import Callers
from api.metrics import Metrics
from api.problems import Problem
from api.settings import ApiSettings
from broker.producer import Producer
from broker.waiter import Waiter
from broker.wire import ModelEntry

CATALOGUE_S = 5.0  # how long a model's languages are believed
RETRY_NO_MODEL_S = 5


class Bell:
    """Rings once; calls every listener, which must not raise."""

    def __init__(self) -> None:
        self.rung = False
        self.listeners: set[Callable[[], None]] = set()

    def ring(self) -> None:
        self.rung = True
        for listener in tuple(self.listeners):
            listener()


class Catalogue:
    """The model's entry in the broker, which outlives its workers."""

    def __init__(self, producer: Producer, model: str) -> None:
        self._producer = producer
        self._model = model
        self._entry: ModelEntry | None = None
        self._read_at = 0.0

    async def entry(self) -> ModelEntry:
        """Raises a 503 Problem if no worker ever announced the model."""
        if self._entry is None or time.monotonic() - self._read_at > CATALOGUE_S:
            self._entry = await self._producer.model(self._model)
            self._read_at = time.monotonic()
        if self._entry is None:
            raise Problem(
                503,
                "no_model",
                f"No worker has announced the model {self._model} yet, so that its languages are"
                f" not known. Start one: dragoman-worker --model {self._model}",
                headers={"Retry-After": str(RETRY_NO_MODEL_S)},
            )
        return self._entry


@dataclass
class Service:
    """One per API process, found through ``service_of``."""

    settings: ApiSettings
    model: str  # the name under which requests are queued
    producer: Producer
    waiter: Waiter
    catalogue: Catalogue
    callers: Callers
    metrics: Metrics
    draining: Bell = field(default_factory=Bell)  # long polls and event streams end here
    closing: Bell = field(default_factory=Bell)  # synchronous requests get their Location here

    def drain(self, grace_s: float) -> None:
        """Begins to stop: readers of jobs can come back at once, so they go first."""
        if self.draining.rung:
            return
        self.draining.ring()
        asyncio.get_running_loop().call_later(max(0.0, grace_s), self.closing.ring)


def service_of(request: Request) -> Service:
    """The service of the app that took the request."""
    service: Service = request.app.state.service
    return service
