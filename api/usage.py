"""GET /usage: what the caller's tenant has used, and what it may use."""

from datetime import UTC, datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.callers import caller_of
from api.openapi import JSON, Answer, Operation, problem
from api.parameters import REQUEST_ID
from api.schemas import Limits, Usage, Used
from api.service import service_of

FRESH = {"Cache-Control": "no-store"}


async def show_usage(request: Request) -> Response:
    """Answers for the caller's tenant alone; without keys, for everybody together."""
    service, caller = service_of(request), caller_of(request)
    quota, now = caller.quota, datetime.now(UTC)
    used = await service.callers.meter.usage(caller.tenant, service.model, now)
    cap = quota.outstanding_chars or service.producer.settings.max_tenant_chars
    usage = Usage(
        tenant=caller.tenant,
        today=Used(**msgspec.structs.asdict(used.today)),
        month=Used(**msgspec.structs.asdict(used.month)),
        outstanding_chars=used.outstanding_chars,
        limits=Limits(
            requests_per_second=quota.requests_per_s or None,
            chars_per_minute=quota.chars_per_minute or None,
            outstanding_chars=cap,
            weight=quota.weight,
        ),
    )
    return Response(msgspec.json.encode(usage), 200, FRESH, JSON)


OPERATIONS = (
    Operation(
        "GET",
        "/usage",
        show_usage,
        "Usage",
        "What the tenant of the key has handed in today and this month (UTC), what of it is queued"
        " or running, and its limits. Counted is what was queued: a repeated Idempotency-Key or a"
        " request that joins an identical one in flight adds nothing; a document counts as one"
        " request for each 250 texts or so.",
        "Translation",
        parameters=(REQUEST_ID,),
        answers=(
            Answer(200, "The usage.", "Usage"),
            problem(503, "Redis is away.", Retry_After="Seconds."),
        ),
    ),
)
