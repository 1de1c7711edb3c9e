"""The promise of the broker as a state machine: each accepted record reaches exactly one terminal
state, whatever the parties do and in whichever order."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from broker.consumer import Consumer
from broker.errors import BrokerUnavailable
from broker.keys import GROUP, Keys
from broker.producer import Producer
from broker.wire import LANES, Completion, Delivery, Failure, Outcome, Submission
from tests.broker.parties import MODEL, answers, beat, submission, worker
from tests.conftest import settings_for
from tests.redis_server import RedisServer

KEYS = Keys("0")


def patiently(call: Callable[[], Any]) -> Any:
    """The first call after a restart finds its connection broken; a tier simply tries again."""
    for _ in range(3):
        try:
            return call()
        except BrokerUnavailable:
            continue
    return call()


class Pipeline(RuleBasedStateMachine):
    """``server`` is set by the test; each example starts on an empty server."""

    server: RedisServer
    requests = Bundle("requests")

    @initialize()
    def begin(self) -> None:
        self.server.client.flushall()
        self.settings = settings_for(self.server, lease_s=0.001, heartbeat_s=60)
        self.loop = asyncio.new_event_loop()
        self.producer = self._await(self._producer)
        self.consumers = [worker(self.settings, 3) for _ in range(2)]
        self.held: list[list[Delivery]] = [[], []]
        self.accepted: dict[str, Submission] = {}
        self.seen: dict[tuple[str, int], Outcome] = {}
        self.ended: dict[str, str] = {}

    async def _producer(self) -> Producer:
        producer = Producer(self.settings, "api-1")
        await producer.prepare()
        return producer

    def _await(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return patiently(lambda: self.loop.run_until_complete(call(*arguments)))

    @rule(
        target=requests, count=st.integers(1, 5), lane=st.sampled_from(LANES),
        tenant=st.sampled_from(["a", "b"]), expired=st.booleans(),
    )  # fmt: skip
    def submit(self, count: int, lane: str, tenant: str, expired: bool) -> Any:
        request = submission(
            self.producer, [f"text {i}" for i in range(count)], lane=lane, tenant=tenant,
            deadline_ms=1 if expired else 600_000,
        )  # fmt: skip
        self._await(self.producer.submit, request)
        self.accepted[request.id] = request
        return multiple(request)

    @rule(request=requests)
    def submit_again(self, request: Submission) -> None:
        assert self._await(self.producer.submit, request).duplicate

    @rule(who=st.integers(0, 1), rooms=st.tuples(st.integers(0, 3), st.integers(0, 3)))
    def read(self, who: int, rooms: tuple[int, int]) -> None:
        self.held[who] += patiently(lambda: self.consumers[who].read(*rooms, 0))

    @rule(who=st.integers(0, 1))
    def reclaim(self, who: int) -> None:
        self.held[who] += patiently(lambda: self.consumers[who].reclaim(3))

    @rule(who=st.integers(0, 1), count=st.integers(1, 4), fails=st.booleans())
    def complete(self, who: int, count: int, fails: bool) -> None:
        deliveries, self.held[who] = self.held[who][:count], self.held[who][count:]
        verdicts = patiently(lambda: self.consumers[who].begin(deliveries))
        completions = []
        for delivery, verdict in zip(deliveries, verdicts, strict=True):
            outcome = answers([delivery])[0].outcome
            if fails or verdict == "expired":
                outcome = Outcome(error=Failure("expired" if not fails else "internal", "no"))
            completions.append(Completion(delivery, outcome))
        self.consumers[who].complete(completions)

    @rule(who=st.integers(0, 1))
    def hand_back(self, who: int) -> None:
        patiently(lambda: self.consumers[who].hand_back(self.held[who]))
        self.held[who] = []

    @rule(who=st.integers(0, 1))
    def die(self, who: int) -> None:
        self.consumers[who].close()
        self.consumers[who] = worker(self.settings, 3)
        self.held[who] = []

    @rule(who=st.integers(0, 1))
    def retire(self, who: int) -> None:
        patiently(self.consumers[who].retire)
        patiently(lambda: beat(self.consumers[who], 3))

    @rule(request=requests)
    def cancel(self, request: Submission) -> None:
        status = self._await(self.producer.cancel, request.tenant, request.id)
        assert status.finished

    @rule()
    def lose_the_functions(self) -> None:
        self.server.client.function_flush()

    @rule()
    def restart_the_server(self) -> None:
        self.server.kill()
        self.server.start()
        self.server.client.config_set("appendfsync", "always")

    @invariant()
    def what_is_seen_never_changes(self) -> None:
        if not hasattr(self, "accepted"):
            return
        for request in self.accepted.values():
            status, outcomes = self._await(self.producer.view, request.tenant, request.id)
            assert self.ended.setdefault(request.id, status.state) == status.state or (
                self.ended[request.id] in ("queued", "running")
            )
            self.ended[request.id] = status.state
            for index, outcome in outcomes.items():
                assert self.seen.setdefault((request.id, index), outcome) == outcome

    def teardown(self) -> None:
        if not hasattr(self, "accepted"):
            return
        self._drain()
        for request in self.accepted.values():
            status, outcomes = self._await(self.producer.view, request.tenant, request.id)
            assert status.finished
            if status.state != "cancelled":
                assert len(outcomes) == status.total == len(request.texts)
                assert (status.state == "done") == any(o.text for o in outcomes.values())
        load = self._await(self.producer.load, MODEL)
        assert (load.outstanding_cost, load.ready, load.backlog) == (0, 0, 0)
        assert all(cost == 0 for cost in load.cost_by_lane.values())
        for lane in LANES:
            assert self.server.client.xpending(KEYS.queue(MODEL, lane), GROUP)["pending"] == 0
        assert not self.server.immortal_keys()
        for consumer in self.consumers:
            consumer.close()
        self._await(self.producer.close)
        self.loop.close()

    def _drain(self) -> None:
        """One worker that stays alive finishes whatever is left."""
        survivor = self.consumers[0]
        for who in (0, 1):
            patiently(lambda who=who: self.consumers[who].hand_back(self.held[who]))
        self._expire_leases(survivor)
        for _ in range(200):
            work = patiently(lambda: survivor.reclaim(8) or survivor.read(8, 8, 0))
            survivor.complete(answers(work))
            load = self._await(self.producer.load, MODEL)
            if not work and load.ready == load.backlog == 0:
                return
            self._expire_leases(survivor)
        raise AssertionError("200 batches did not drain the queue")

    def _expire_leases(self, consumer: Consumer) -> None:
        for lane in LANES:
            stream = KEYS.queue(MODEL, lane)
            for entry in self.server.client.xpending_range(stream, GROUP, "-", "+", 1000):
                self.server.client.xclaim(
                    stream, GROUP, entry["consumer"], 0, [entry["message_id"]], idle=1000,
                    justid=True,
                )  # fmt: skip


@pytest.fixture
def machine(aof_server: RedisServer) -> type[Pipeline]:
    # everysec holds writes back for up to two seconds while an fsync is under way, so that even a
    # killed process may lose what it has answered (this test found it); always does not.
    aof_server.client.config_set("appendfsync", "always")
    Pipeline.server = aof_server
    return Pipeline


def test_each_accepted_record_reaches_exactly_one_terminal_state(
    machine: type[Pipeline],
) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
