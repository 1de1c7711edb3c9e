"""What can go wrong at the broker, in the broker's own words; redis exceptions end here."""


class BrokerError(Exception):
    """Base of everything this package raises on purpose."""


class BrokerUnavailable(BrokerError):
    """Redis did not answer in time, refused the connection, or is loading its data set."""


class BrokerMisconfigured(BrokerError):
    """Redis answers, but cannot serve Dragoman as it is set up; the message names the remedy."""


class Overloaded(BrokerError):
    """The outstanding work is above the cap, so the request was refused and nothing was queued.

    ``estimated_wait_s`` is how long the present backlog takes at the measured drain rate, or None
    while no rate has been measured.
    """

    def __init__(self, estimated_wait_s: float | None) -> None:
        super().__init__("the outstanding work is above the admission cap")
        self.estimated_wait_s = estimated_wait_s


class IdempotencyConflict(BrokerError):
    """The Idempotency-Key was used before with a different body."""
