"""What a worker has taken from the queue and not yet answered. All of its threads ask here, so that
every record is answered by one of them, once."""

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from broker.wire import Delivery
from inference_worker.draft import Draft

Place = tuple[str, str]


class Holder(Protocol):
    """What a worker needs of ``broker.leases.Leases``."""

    def hold(self, deliveries: Iterable[Delivery]) -> None: ...
    def release(self, deliveries: Iterable[Delivery]) -> None: ...
    def check(self) -> None: ...


class Holdings:
    """Deliveries under lease from ``take`` to ``let_go``, and the drafts being translated.

    A draft is open until somebody decides how it ends: whoever gets True from ``close`` answers for
    its record, be it with a translation, a failure or by handing it back.
    """

    def __init__(self, leases: Holder) -> None:
        self._leases = leases
        self._lock = threading.Lock()
        self._deliveries: dict[Place, Delivery] = {}
        self._open: dict[Place, Draft] = {}

    def take(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Holds deliveries; returns those that were not held already.

        After a pause longer than the lease a worker may reclaim what it is working on itself.
        """
        with self._lock:
            new = [one for one in deliveries if one.place not in self._deliveries]
            self._deliveries.update((one.place, one) for one in new)
        self._leases.hold(new)
        return new

    def let_go(self, deliveries: Sequence[Delivery]) -> None:
        """These are answered, or are no longer ours to answer."""
        with self._lock:
            for delivery in deliveries:
                self._deliveries.pop(delivery.place, None)
        self._leases.release(deliveries)

    @property
    def empty(self) -> bool:
        """Whether everything taken has been let go."""
        return not self._deliveries

    def open(self, draft: Draft) -> None:
        """From here on a draft may end at any moment."""
        with self._lock:
            self._open[draft.delivery.place] = draft

    def close(self, draft: Draft) -> bool:
        """Whether the caller is the one to end this draft; True for one caller only."""
        with self._lock:
            return self._open.pop(draft.delivery.place, None) is not None

    def holds(self, draft: Draft) -> bool:
        """Whether a draft has not ended; that may change at any moment."""
        return self._open.get(draft.delivery.place) is draft

    def drafts(self) -> list[Draft]:
        """The drafts that have not ended."""
        with self._lock:
            return list(self._open.values())

    def check(self) -> None:
        """Raises RuntimeError if nobody renews the leases any more."""
        self._leases.check()
