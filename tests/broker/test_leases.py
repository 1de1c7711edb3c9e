from collections.abc import Callable
from typing import Any

import pytest

from broker.consumer import Consumer
from broker.errors import BrokerUnavailable
from broker.keys import GROUP
from broker.leases import Leases
from broker.producer import Producer
from broker.settings import BrokerSettings
from tests.broker.parties import answers, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer


def ignore(reason: str) -> None:
    raise AssertionError(reason)


async def test_a_slow_batch_of_three_leases_runs_once(
    producer: Producer, broker_settings: BrokerSettings, redis_server: RedisServer,
    wait_until: Callable[..., Any],
) -> None:  # fmt: skip
    """The thread renews every 50 ms; that it is in time is not asked of a busy machine, so that the
    others believe in leases which are longer, and each is aged by hand."""
    slow = worker(settings_for(redis_server, lease_s=0.2))
    other = worker(broker_settings)
    await producer.submit(submission(producer, ["a", "b"]))
    deliveries = slow.read(8, 8, 0)
    stream = deliveries[0].stream
    almost_ms = int(broker_settings.lease_s * 500)

    def renewed() -> bool:
        pending = redis_server.client.xpending_range(stream, GROUP, "-", "+", 8)
        return all(entry["time_since_delivered"] < almost_ms for entry in pending)

    leases = Leases(slow, hang_limit_s=60, die=ignore)
    leases.start()
    leases.hold(deliveries)
    for _ in range(6):  # halves of a lease
        redis_server.client.xclaim(
            stream, GROUP, slow.worker, 0, [d.entry for d in deliveries], idle=almost_ms,
            justid=True,
        )  # fmt: skip
        wait_until(renewed, description="the leases are renewed")
        assert other.reclaim(8) == []
    assert slow.complete(answers(deliveries)) == 2
    leases.release(deliveries)
    leases.stop()
    slow.close()
    other.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_no_progress_stops_the_renewal(producer: Producer, consumer: Consumer) -> None:
    await producer.submit(submission(producer, ["a", "b"]))
    clock = Clock()
    leases = Leases(consumer, hang_limit_s=10, die=ignore, clock=clock)
    leases.hold(consumer.read(8, 8, 0))
    clock.now = 9
    assert leases.renew() == 2
    clock.now = 11
    assert leases.renew() == 0
    leases.progress()
    assert leases.renew() == 2
    leases.progress("intake")
    clock.now = 22
    leases.progress()
    assert leases.renew() == 0  # one stage that stands still is enough
    leases.progress("intake")
    assert leases.renew() == 2


async def test_what_is_finished_is_no_longer_renewed(
    producer: Producer, consumer: Consumer
) -> None:
    await producer.submit(submission(producer, ["a", "b"]))
    deliveries = consumer.read(8, 8, 0)
    leases = Leases(consumer, hang_limit_s=10, die=ignore)
    assert leases.renew() == 0
    leases.hold(deliveries)
    consumer.complete(answers(deliveries[:1]))
    assert leases.renew() == 1
    leases.release(deliveries)
    assert leases.renew() == 0


async def test_redis_away_is_passed_over(
    producer: Producer, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await producer.submit(submission(producer, ["a"]))
    leases = Leases(consumer, hang_limit_s=10, die=ignore)
    leases.hold(consumer.read(8, 8, 0))

    def away(deliveries: Any) -> Any:
        raise BrokerUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(consumer, "renew", away)
        assert leases.renew() == 0
    assert leases.renew() == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_lease_thread_ends_the_process(
    consumer: Consumer, wait_until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    leases = Leases(consumer, hang_limit_s=10, die=reasons.append)

    def broken() -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(leases, "renew", broken)
    leases.start()
    leases.check()
    wait_until(lambda: reasons, description="die is called")
    assert "a bug" in reasons[0]
    wait_until(lambda: not leases._thread.is_alive(), description="the thread is gone")
    with pytest.raises(RuntimeError, match="dead"):
        leases.check()
