"""The thread that keeps a worker's leases alive while its engine makes progress."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from broker.consumer import Consumer
from broker.errors import BrokerError
from broker.wire import Delivery

log = logging.getLogger(__name__)


class Leases:
    """Renews every quarter of a lease what the worker holds.

    Stops renewing when the last progress of any of the worker's stages is older than
    ``hang_limit_s``, so that the records move on. If the thread itself dies, ``die`` is called with
    the reason: a worker that cannot renew must not go on.
    """

    def __init__(
        self,
        consumer: Consumer,
        hang_limit_s: float,
        die: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._hang_limit_s = hang_limit_s
        self._die = die
        self._clock = clock
        self._progress = {"decoding": clock()}  # by stage
        self._stalled = False
        self._held: dict[tuple[str, str], Delivery] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """These are being worked on from now on."""
        with self._lock:
            self._held.update((delivery.place, delivery) for delivery in deliveries)

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """These are finished or handed back."""
        with self._lock:
            for delivery in deliveries:
                self._held.pop(delivery.place, None)

    def progress(self, stage: str = "decoding") -> None:
        """A stage begins another turn, or the engine has done a part of its step."""
        with self._lock:
            self._progress[stage] = self._clock()

    def check(self) -> None:
        """Raises RuntimeError if the thread is gone although nobody stopped it."""
        if not self._stopping.is_set() and not self._thread.is_alive():
            raise RuntimeError("the lease thread is dead")

    def renew(self) -> int:
        """One renewal of everything held; returns how many records are still ours.

        Redis being away is passed over: leases run on there too while it cannot expire them.
        """
        with self._lock:
            held = list(self._held.values())
            stage = min(self._progress, key=self._progress.__getitem__)
            still_s = self._clock() - self._progress[stage]
        if still_s > self._hang_limit_s:
            if not self._stalled:
                limit_s = self._hang_limit_s
                log.error("no progress of %s for %.0f s: leases are not renewed", stage, limit_s)
            self._stalled = True
            return 0
        self._stalled = False
        if not held:
            return 0
        try:
            ours = self._consumer.renew(held)
        except BrokerError as error:
            log.warning("leases not renewed: %s", error)
            return 0
        # Finished in the meantime, or reclaimed by another worker: nothing to renew either way.
        self.release(delivery for delivery in held if delivery.place not in ours)
        return len(ours)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._consumer.settings.lease_s / 4):
                self.renew()
        except BaseException as error:
            self._die(f"the lease thread died: {error!r}")
            raise
