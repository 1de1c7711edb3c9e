"""What is counted, and that labels stay bounded."""

from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.api.stage import Worker, body


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found[(name, tuple(sorted(labels.items())))]


async def test_requests_records_and_the_broker(client: httpx.AsyncClient, worker: Worker) -> None:
    await client.post("/translation", json=body("one", "poison"))
    await client.post("/translation", json=body("poison"))
    location = (await client.post("/jobs", json=body("four"))).headers["location"]
    await client.get(f"{location}?wait=60")
    await client.get("/jobs/other")
    for path in ("/nowhere", "/else/where"):
        await client.get(path)
    await client.request("BREW", "/healthz")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = samples(answer.text)
    requests = "dragoman_http_requests_total"
    assert value(found, requests, method="POST", route="/translation", status="200") == 1
    assert value(found, requests, method="POST", route="/translation", status="502") == 1
    assert value(found, requests, method="GET", route="/jobs/{id}", status="404") == 1
    assert value(found, requests, method="GET", route="other", status="404") == 2
    assert value(found, requests, method="OTHER", route="/healthz", status="405") == 1
    assert value(found, "dragoman_records_accepted_total", lane="interactive") == 3
    assert value(found, "dragoman_records_accepted_total", lane="bulk") == 1
    assert value(found, "dragoman_characters_accepted_total", lane="bulk") == 4
    assert value(found, "dragoman_http_request_seconds_count", route="/translation") == 2
    assert value(found, "dragoman_http_requests_in_flight") == 1
    assert value(found, "dragoman_broker_up") == 1
    assert value(found, "dragoman_workers") == 1
    assert value(found, "dragoman_outstanding_characters", lane="bulk") == 0
    assert value(found, "dragoman_backlog_records") == 0
    assert value(found, "dragoman_dead_letters") == 0
    (labels,) = (dict(labels) for name, labels in found if name == "dragoman_worker_info")
    assert labels["device"] == "cpu"
    assert labels["engine"] == "test"
    own = labels["worker"]
    assert value(found, "dragoman_worker_slots", worker=own) == 64
    assert value(found, "dragoman_worker_completed_records", worker=own) == 0
    assert value(found, "dragoman_worker_seen_time_seconds", worker=own) > 1e9
    assert value(found, "dragoman_worker_completed_sentences", worker=own) == 7
    assert value(found, "dragoman_worker_cached_sentences", worker=own) == 2
    assert value(found, "dragoman_worker_coalesced_sentences", worker=own) == 1
    assert value(found, "dragoman_worker_warned_records", worker=own, code="mended") == 3


async def test_a_repeated_key_is_not_counted_as_new_work(
    client: httpx.AsyncClient, worker: Worker
) -> None:
    for _ in range(3):
        await client.post("/jobs", json=body("one"), headers={"Idempotency-Key": "k"})
    found = samples((await client.get("/metrics")).text)
    assert value(found, "dragoman_records_accepted_total", lane="bulk") == 1
