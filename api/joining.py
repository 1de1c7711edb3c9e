"""A synchronous request that found identical work of its tenant under way, and waits for that.

The work is dropped only when every caller that wants it is gone. What belongs to one caller stays
its own: the ids of the records, the deadline, and the Location, which a joined request has none of;
a caller that needs one, or whose work was cancelled by another, gets a request of its own.
"""

from time import monotonic

import msgspec
from starlette.requests import Request

from api.service import service_of
from api.waiting import Ending, wait
from broker.wire import Details, Failure, Outcome, RequestStatus, Submission

View = tuple[RequestStatus, dict[int, Outcome]]

_EXPIRED = Outcome(
    error=Failure("expired", "The deadline passed before the record was translated.")
)


async def share(
    request: Request, submission: Submission, joined: str, patience_s: float
) -> tuple[Ending, View | None]:
    """Waits for the request ``joined``, which ``submit`` counted this caller into.

    Answers how the wait ended and what came of the work, as if it were this caller's own. Without
    that, unless the caller left, ``submission`` is to be submitted for itself: the caller no longer
    counts among those who want ``joined``.
    """
    service = service_of(request)
    deadline_s = monotonic() + submission.deadline_ms / 1000
    with service.waiter.watching(submission.tenant, joined) as watch:
        status = await service.producer.watch(submission.tenant, joined)
        if status is None or status.finished:
            watch.tell(ended=True)
        ending = await wait(watch, watch.finished(patience_s), service.closing, request.receive)
        if ending is Ending.CAME:
            view = await service.producer.view(submission.tenant, joined)
            if view is not None and view[0].state in ("done", "failed"):
                return ending, _own(view, submission)
            return ending, None  # cancelled, or lost by Redis and perhaps queued again since
        await service.producer.leave(submission.tenant, joined)
    if ending is Ending.TIMED_OUT and status is not None and monotonic() >= deadline_s:
        late = dict.fromkeys(range(status.total), _EXPIRED)
        return ending, _own((status, late), submission)
    return ending, None


def _own(view: View, submission: Submission) -> View:
    """The same work under this caller's ids; every sentence of it was translated for others too."""
    status, outcomes = view
    shared = {
        index: msgspec.structs.replace(
            outcome,
            details=outcome.details and _shared(outcome.details),
        )
        for index, outcome in outcomes.items()
    }
    return msgspec.structs.replace(status, ids=submission.ids), shared


def _shared(details: Details) -> Details:
    return msgspec.structs.replace(details, coalesced=details.sentences - details.cached)
