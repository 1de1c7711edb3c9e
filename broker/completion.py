"""Deliveries on their way to an end: what the ``begin`` and ``complete`` functions are told about
them. What belongs to a request is told once, however many of its records there are."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from broker.keys import Keys
from broker.settings import BrokerSettings
from broker.wire import LANES, Delivery, Lane, Outcome, Record, Verdict

# A delivery, its outcome (None: none is needed), whether it is also a dead letter.
End = tuple[Delivery, Outcome | None, bool]

_Item = TypeVar("_Item")

_encode = msgspec.json.Encoder().encode


def by_request(
    items: Iterable[_Item], record: Callable[[_Item], Record]
) -> dict[tuple[str, str], list[_Item]]:
    """What belongs to the same request, by its tenant and id."""
    groups: dict[tuple[str, str], list[_Item]] = {}
    group: list[_Item] = []
    tenant = request = None
    for item in items:
        found = record(item)
        if found.request != request or found.tenant != tenant:  # they come in runs
            tenant, request = found.tenant, found.request
            group = groups.setdefault((tenant, request), [])
        group.append(item)
    return groups


def indexes(deliveries: Sequence[Delivery]) -> str:
    """A request's records as ``begin`` takes them."""
    return " ".join([str(delivery.record.index) for delivery in deliveries])


def judged(
    deliveries: Sequence[Delivery], verdict: Verdict, over: Sequence[bytes]
) -> dict[tuple[str, str], Verdict]:
    """The verdicts on a request's records, by their place, where they are not *go*: its own, but
    for the indexes in ``over``."""
    if verdict == "go" and not over:
        return {}
    ended = {int(index) for index in over}
    return {d.place: "over" if d.record.index in ended else verdict for d in deliveries}


def told(
    ends: Sequence[End],
    keys: Keys,
    lanes: Sequence[str],
    model: str,
    settings: BrokerSettings,
    watchers: Mapping[str, Sequence[str]],
) -> tuple[list[str], list[Any]]:
    """Keys and arguments of ``complete`` for ends in one shard. ``lanes`` are the streams and
    backlogs of the model there, ``watchers`` the processes that wait for a request, by its key."""
    requests: list[str] = []
    leads: dict[str, int] = {}
    entries: dict[Lane, list[str]] = {lane: [] for lane in LANES}
    records: list[Any] = []
    dead: list[tuple[Delivery, bytes]] = []
    groups = by_request(ends, lambda end: end[0].record)
    for lane in LANES:
        for (tenant, request), group in groups.items():
            first = group[0][0].record
            if first.lane != lane:
                continue
            requests.append(keys.request(tenant, request))
            lead = _lead(keys, first)
            place = leads.setdefault(lead, len(leads) + 1) if lead else 0
            sizes, outcomes = [], []
            for delivery, outcome, is_dead in group:
                record = delivery.record
                entries[lane].append(delivery.entry)
                if outcome is None:
                    sizes.append(f"{record.index}n{record.cost}")
                    continue
                kind = "e" if outcome.text is None else "t"
                sizes.append(f"{record.index}{kind}{record.cost}")
                outcomes.append(_encode(outcome))
                if is_dead:
                    dead.append((delivery, outcomes[-1]))
            records += (tenant, request, place, " ".join(sizes), *outcomes)
    processes = sorted({process for name in requests for process in watchers.get(name, ())})
    ordered = [entry for lane in LANES for entry in entries[lane]]
    letters: list[Any] = []
    for delivery, encoded in dead:
        letters += (_ordinal(entries, delivery), _encode(delivery.record), encoded)
    arguments = [
        model,
        settings.result_ttl_s * 1000,
        settings.dead_letters,
        len(requests),
        len(leads),
        len(processes),
        *(len(entries[lane]) for lane in LANES),
        *processes,
        *ordered,
        *records,
        *letters,
    ]
    replies = [keys.reply(process) for process in processes]
    return [keys.load(), keys.dead(), *lanes, *requests, *leads, *replies], arguments


def _ordinal(entries: Mapping[Lane, Sequence[str]], delivery: Delivery) -> int:
    """Which of all entries this is, counted from 1."""
    lane = delivery.record.lane
    before = sum(len(entries[one]) for one in LANES[: LANES.index(lane)])
    return before + entries[lane].index(delivery.entry) + 1


def _lead(keys: Keys, record: Record) -> str:
    """The key that leads to the record's request besides its id; "" if there is none."""
    if record.idempotency:
        return keys.idempotency(record.tenant, record.idempotency)
    return keys.inflight(record.tenant, record.join) if record.join else ""
