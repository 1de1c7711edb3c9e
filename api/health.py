"""What operators and orchestrators ask: is the process alive, is it ready, how does it fare."""

from contextlib import suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.openapi import JSON, Answer, Operation, Parameter, problem
from api.parameters import least_workers
from api.problems import Problem
from api.schemas import Health, Readiness
from api.service import service_of
from broker.errors import BrokerError
from broker.wire import Load, WorkerEntry

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ALIVE = msgspec.json.encode(Health("ok"))


async def healthz(request: Request) -> Response:
    """Answers while the event loop turns."""
    return Response(_ALIVE, media_type=JSON)


async def readyz(request: Request) -> Response:
    """Answers 200 when requests can be taken; during a shutdown it no longer does."""
    least = least_workers(request)
    service = service_of(request)
    if service.draining.rung:
        raise Problem(503, "draining", "This process is shutting down. Ask another one.")
    try:
        await service.producer.ready()
        workers = len(await service.producer.workers(service.model))
    except BrokerError as error:
        raise Problem(503, "broker_not_ready", f"{error}.") from error
    if workers < least:
        raise Problem(
            503,
            "no_worker",
            f"{workers} live workers serve the model {service.model}, fewer than asked for. Start"
            f" one: dragoman-worker --model {service.model}",
            members={"workers": workers},
        )
    return Response(msgspec.json.encode(Readiness("ready", workers)), media_type=JSON)


async def metrics(request: Request) -> Response:
    """Answers a scrape: the counters as they are, the broker's state as it is now."""
    service = service_of(request)
    load: Load | None = None
    workers: list[WorkerEntry] = []
    with suppress(BrokerError):
        load = await service.producer.load(service.model)
        workers = await service.producer.workers(service.model)
    return Response(service.metrics.render(load, workers), media_type=METRICS_TYPE)


OPERATIONS = (
    Operation(
        "GET",
        "/healthz",
        healthz,
        "Liveness",
        "Answers while the process is alive, whatever the state of Redis.",
        "Operation",
        answers=(Answer(200, "Alive.", "Health"),),
        open=True,
    ),
    Operation(
        "GET",
        "/readyz",
        readyz,
        "Readiness",
        "Whether Redis is reachable and the broker's functions are loaded.",
        "Operation",
        parameters=(
            Parameter(
                "workers",
                "query",
                "How many live workers there must be.",
                {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 0},
            ),
        ),
        answers=(
            Answer(200, "Ready.", "Readiness"),
            problem(400, "The parameter does not fit."),
            problem(503, "Not ready; the detail says why."),
        ),
        open=True,
    ),
    Operation(
        "GET",
        "/metrics",
        metrics,
        "Metrics",
        "Counters of all API processes behind this port, and the broker's state, in the Prometheus"
        " text format.",
        "Operation",
        answers=(Answer(200, "The metrics.", media_type="text/plain"),),
        open=True,  # where the operator does not say otherwise
    ),
)
