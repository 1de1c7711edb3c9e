"""Query parameters and headers: what they mean, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from api import parameters
from api.parameters import Preference
from api.problems import Problem


def asked(query: str = "", *headers: tuple[str, str]) -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": query.encode("latin-1"),
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in headers
            ],
        }
    )


@pytest.mark.parametrize(
    ("query", "value"),
    [("", False), ("details=true", True), ("details=1", True), ("details=false", False),
     ("details=0", False), ("detail=true", False)],
)  # fmt: skip
def test_flags(query: str, value: bool) -> None:
    assert parameters.flag(asked(query), "details") is value


@pytest.mark.parametrize(("query", "value"), [("", 0), ("wait=2", 2), ("wait=0.25", 0.25)])
def test_wait(query: str, value: float) -> None:
    assert parameters.wait_s(asked(query)) == value


@pytest.mark.parametrize(
    ("read", "query", "field"),
    [
        (lambda request: parameters.flag(request, "details"), "details=maybe", "query.details"),
        (lambda request: parameters.flag(request, "details"), "details=", "query.details"),
        (
            lambda request: parameters.flag(request, "details"),
            "details=1&details=0",
            "query.details",
        ),
        (parameters.wait_s, "wait=", "query.wait"),
        (parameters.wait_s, "wait=soon", "query.wait"),
        (parameters.wait_s, "wait=-1", "query.wait"),
        (parameters.wait_s, "wait=301", "query.wait"),
        (parameters.wait_s, "wait=nan", "query.wait"),
        (parameters.wait_s, "wait=1e9", "query.wait"),
        (parameters.wait_s, "wait=%ff", "query.wait"),
        (parameters.wait_s, "wait=" + "9" * 6_000, "query.wait"),
        (parameters.wait_s, "wait=%D9%A1", "query.wait"),  # an Arabic digit
        (parameters.least_workers, "workers=true", "query.workers"),
        (parameters.least_workers, "workers=1.5", "query.workers"),
    ],
)
def test_queries_that_do_not_fit(read: Callable[[Request], Any], query: str, field: str) -> None:
    with pytest.raises(Problem) as caught:
        read(asked(query))
    assert (caught.value.status, caught.value.field) == (400, field)


@pytest.mark.parametrize(
    ("values", "preference", "at_once", "applied"),
    [
        ([], Preference(), False, None),
        (["wait=5"], Preference(5), False, "wait=5"),
        (["respond-async"], Preference(None, True), True, "respond-async"),
        (["Respond-Async, Wait=10"], Preference(10, True), False, "respond-async, wait=10"),
        (["handling=lenient", 'wait="7"; x=y'], Preference(7), False, "wait=7"),
        (["wait=0"], Preference(0), True, "wait=0"),
        (["wait=999999"], Preference(300), False, "wait=300"),
        (["wait=soon, return=minimal"], Preference(), False, None),
        (["wait=1, wait=2"], Preference(1), False, "wait=1"),
    ],
)
def test_prefer(
    values: list[str], preference: Preference, at_once: bool, applied: str | None
) -> None:
    found = parameters.preference(asked("", *(("Prefer", value) for value in values)))
    assert found == preference
    assert found.at_once is at_once
    assert found.applied.get("Preference-Applied") == applied


def test_deadlines() -> None:
    assert parameters.deadline_ms(asked(), 600) == 600_000
    assert parameters.deadline_ms(asked("", ("X-Deadline-Ms", "1500")), 600) == 1_500


@pytest.mark.parametrize("value", ["", "0", "-5", "1.5", "soon", "604800001", "9" * 400])
def test_deadlines_that_do_not_fit(value: str) -> None:
    with pytest.raises(Problem) as caught:
        parameters.deadline_ms(asked("", ("X-Deadline-Ms", value)), 600)
    assert (caught.value.status, caught.value.field) == (400, "X-Deadline-Ms")


def test_idempotency_digests_depend_on_tenant_and_key() -> None:
    def digest(tenant: str, key: str) -> str:
        return parameters.idempotency_digest(asked("", ("Idempotency-Key", key)), tenant)

    assert parameters.idempotency_digest(asked(), "a") == ""
    assert digest("a", "k") == digest("a", "k")
    assert len({digest("a", "k"), digest("b", "k"), digest("a", "l"), digest("a", '"k"')}) == 4


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "schlüssel", "a\tb"])
def test_idempotency_keys_that_do_not_fit(key: str) -> None:
    with pytest.raises(Problem) as caught:
        parameters.idempotency_digest(asked("", ("Idempotency-Key", key)), "a")
    assert (caught.value.status, caught.value.field) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("nonsense", False),
    ],
)
def test_malformed_trace_contexts_are_ignored(value: str, kept: bool) -> None:
    assert parameters.traceparent(asked("", ("traceparent", value))) == (value if kept else "")


@pytest.mark.parametrize(
    "value",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"',
     "application/vnd.api+json"],
)  # fmt: skip
def test_json_content_types(value: str) -> None:
    parameters.require_json(asked("", ("Content-Type", value)))
    parameters.require_json(asked())


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Type", "text/plain"),
        ("Content-Type", ""),
        ("Content-Type", "application/json; charset=utf-16"),
        ("Content-Encoding", "gzip"),
    ],
)
def test_other_content_types_are_415(header: str, value: str) -> None:
    with pytest.raises(Problem) as caught:
        parameters.require_json(asked("", (header, value)))
    assert (caught.value.status, caught.value.field) == (415, header)
