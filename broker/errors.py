"""What can go wrong at the broker, in the broker's own words; redis exceptions end here."""


class BrokerError(Exception):
    """Base of everything this package raises on purpose."""


class BrokerUnavailable(BrokerError):
    """Redis did not answer in time, refused the connection, or is loading its data set."""


class BrokerMisconfigured(BrokerError):
    """Redis answers, but cannot serve Dragoman as it is set up; the message names the remedy."""


class Overloaded(BrokerError):
    """The outstanding work of all tenants is above the cap: the request was refused, and nothing
    was queued.

    ``estimated_wait_s`` is how long the request would have waited for its last record, and
    ``room_s`` how long it takes until there is room for it, if nothing else comes; both are None
    while no drain rate has been measured.
    """

    reason = "the outstanding work is above the admission cap"

    def __init__(self, estimated_wait_s: float | None, room_s: float | None = None) -> None:
        super().__init__(self.reason)
        self.estimated_wait_s = estimated_wait_s
        self.room_s = room_s


class TenantOverloaded(Overloaded):
    """The tenant's own outstanding work is above its cap; others are still served."""

    reason = "the tenant's outstanding work is above its cap"


class TooLate(Overloaded):
    """The work would not end before its deadline, ``deadline_s`` from now: no model time is spent
    on what nobody will want any more."""

    reason = "the estimated wait is longer than the deadline allows"

    def __init__(self, estimated_wait_s: float, room_s: float, deadline_s: float) -> None:
        super().__init__(estimated_wait_s, room_s)
        self.deadline_s = deadline_s


class IdempotencyConflict(BrokerError):
    """The Idempotency-Key was used before with a different body."""
