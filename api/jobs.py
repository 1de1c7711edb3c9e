"""Jobs: submit, read, wait for, cancel. Any API process answers for any job."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api import examples
from api.admission import REFUSED, admit
from api.callers import caller_of
from api.openapi import JSON, Answer, Operation, problem
from api.parameters import (
    DEADLINE,
    DETAILS,
    IDEMPOTENCY_KEY,
    JOB_ID,
    REQUEST_ID,
    TRACEPARENT,
    WAIT,
    Preference,
    flag,
    wait_s,
)
from api.problems import hung_up, unknown_job
from api.results import job, ticket
from api.service import service_of
from api.translation import hand_over
from api.waiting import Ending, wait

FRESH = {"Cache-Control": "no-store"}


async def submit_job(request: Request) -> Response:
    """Queues the records and answers 202 with the job's Location."""
    submission = await admit(request, synchronous=False)
    return await hand_over(request, submission, Preference())


async def read_job(request: Request) -> Response:
    """The job as it stands; with ``?wait=N`` as soon as it ends, N seconds later at the latest."""
    service, tenant = service_of(request), caller_of(request).tenant
    request_id: str = request.path_params["id"]
    details, patience_s = flag(request, "details"), wait_s(request)
    if patience_s:
        with service.waiter.watching(tenant, request_id) as watch:
            status = await service.producer.watch(tenant, request_id)
            if status is None:
                raise unknown_job()
            if not status.finished:
                ending = await wait(
                    watch, watch.finished(patience_s), service.draining, request.receive
                )
                if ending is Ending.LEFT:
                    return hung_up()
    view = await service.producer.view(tenant, request_id)
    if view is None:
        raise unknown_job()
    return Response(msgspec.json.encode(job(*view, details)), 200, FRESH, JSON)


async def cancel_job(request: Request) -> Response:
    """Cancels the job at once; one that has ended stays as it is."""
    producer, tenant = service_of(request).producer, caller_of(request).tenant
    status = await producer.cancel(tenant, request.path_params["id"])
    if status is None:
        raise unknown_job()
    return Response(msgspec.json.encode(ticket(status)), 200, FRESH, JSON)


OPERATIONS = (
    Operation(
        "POST",
        "/jobs",
        submit_job,
        "Submit a job",
        "Queues 1 to 1,000 records and answers at once. With an Idempotency-Key a repeated call"
        " answers with the same job.",
        "Jobs",
        parameters=(DEADLINE, IDEMPOTENCY_KEY, REQUEST_ID, TRACEPARENT),
        body="TranslationRequest",
        examples=examples.REQUESTS,
        answers=(
            Answer(
                202,
                "Queued.",
                "JobTicket",
                headers={"Location": "Where the job can be read."},
                example=examples.TICKET,
            ),
            problem(400, "The body is not JSON in UTF-8, or a parameter does not fit."),
            problem(413, "The body is too large, or holds too much text."),
            problem(415, "The body is something else than JSON."),
            problem(422, "A field does not fit, or the Idempotency-Key came with another body."),
            *REFUSED,
        ),
    ),
    Operation(
        "GET",
        "/jobs/{id}",
        read_job,
        "Read a job",
        "State, progress, and the results so far. `?wait=N` waits until the job ends.",
        "Jobs",
        parameters=(JOB_ID, WAIT, DETAILS, REQUEST_ID),
        answers=(
            Answer(200, "The job as it stands.", "Job", example=examples.JOB),
            problem(400, "A parameter does not fit."),
            problem(404, "No such job."),
            problem(503, "Redis is away.", Retry_After="Seconds."),
        ),
    ),
    Operation(
        "DELETE",
        "/jobs/{id}",
        cancel_job,
        "Cancel a job",
        "The state is `cancelled` at once; results so far stay readable. A job that has ended stays"
        " as it is.",
        "Jobs",
        parameters=(JOB_ID, REQUEST_ID),
        answers=(
            Answer(200, "The job after the call.", "JobTicket", example=examples.CANCELLED),
            problem(404, "No such job."),
            problem(503, "Redis is away.", Retry_After="Seconds."),
        ),
    ),
)
