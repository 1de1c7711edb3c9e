"""The synchronous client against a real HTTP server."""

import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import dragoman
from dragoman import Client, Retries
from tests.dragoman.fake_service import FakeService, Scripted, problem

QUICK = Retries(2, 2, first_delay_s=0.001, longest_delay_s=0.01)


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(service.url, retries=QUICK) as client:
        yield client


def test_one_text_gives_one_text_and_a_list_gives_a_list(client: Client) -> None:
    assert client.translate("hello", "en", "ja") == "HELLO"
    assert client.translate(["a", "", "c"], source="en", target="ja") == ["A", "", "C"]
    assert client.translate([], "en", "ja") == []


def test_languages_travel_in_the_body(client: Client, service: FakeService) -> None:
    client.translate("hello", "en", "ja")
    (seen,) = service.calls("POST", "/translation")
    assert seen.body == {
        "payload": {"fromLang": "en", "toLang": "ja", "records": [{"id": "0", "text": "hello"}]}
    }
    assert int(seen.headers["x-deadline-ms"]) <= 300_000


def test_many_texts_become_several_jobs_in_order(client: Client, service: FakeService) -> None:
    texts = [f"text {number}" for number in range(2_500)]
    assert client.translate(texts, "en", "ja") == [text.upper() for text in texts]
    sizes = [len(seen.body["payload"]["records"]) for seen in service.calls("POST", "/jobs")]
    assert sizes == [1_000, 1_000, 500]


def test_large_texts_stay_below_the_servers_limit(client: Client, service: FakeService) -> None:
    client.translate(["あ" * 9_000] * 60, "ja", "en")
    for seen in service.calls("POST", "/jobs"):
        texts = [record["text"] for record in seen.body["payload"]["records"]]
        assert sum(len(text.encode()) for text in texts) < 1024 * 1024


def test_an_answer_that_takes_long_is_followed_at_its_location(
    client: Client, service: FakeService
) -> None:
    service.held.clear()
    opener = threading.Timer(0.2, service.held.set)
    opener.start()
    assert client.translate("slow", "en", "ja") == "SLOW"
    opener.join()
    assert len(service.calls("POST", "/translation")) == 1


def test_work_not_wanted_any_more_is_cancelled(client: Client, service: FakeService) -> None:
    service.held.clear()
    with pytest.raises(dragoman.NotInTime):
        client.translate("slow", "en", "ja", timeout_s=0.1)
    assert [job["state"] for job in service.jobs.values()] == ["cancelled"]


def test_each_part_says_how_long_it_may_take(client: Client, service: FakeService) -> None:
    client.translate(["text"] * 1_500, "en", "ja", timeout_s=40)
    client.submit(["text"], "en", "ja", deadline_s=7)
    client.submit(["text"], "en", "ja")
    first, second, third, last = (
        seen.headers.get("x-deadline-ms") for seen in service.calls("POST", "/jobs")
    )
    assert 30_000 < int(second or 0) <= int(first or 0) <= 40_000
    assert 1 <= int(third or 0) <= 7_000
    assert last is None  # the server's own default


def test_a_call_that_is_repeated_says_what_is_left(service: FakeService) -> None:
    service.script.append(Scripted(503, problem(503, "overloaded", "Later.")))
    with Client(service.url, retries=Retries(first_delay_s=0.02)) as client:
        client.translate("hello", "en", "ja", timeout_s=40)
    first, second = (int(seen.headers["x-deadline-ms"]) for seen in service.seen)
    assert second < first <= 40_000


def test_work_that_expired_was_not_in_time(client: Client, service: FakeService) -> None:
    expired = {"code": "expired", "detail": "Not begun before its deadline."}
    late = problem(504, "expired", "No record.") | {"result": [{"id": "0", "error": expired}]}
    service.script.append(Scripted(504, late))
    with pytest.raises(dragoman.NotInTime, match="in time"):
        client.translate("hello", "en", "ja", timeout_s=40)


def test_a_caller_who_would_wait_for_ever_says_the_longest_there_is(
    client: Client, service: FakeService
) -> None:
    assert client.translate("hello", "en", "ja", timeout_s=math.inf) == "HELLO"
    assert service.seen[0].headers["x-deadline-ms"] == str(7 * 24 * 3600 * 1000)


def test_an_interrupt_cancels_every_job(
    client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.held.clear()
    carry_out = client._carry_out

    def interrupted(step: Any) -> Any:
        if getattr(step, "method", "") == "GET":
            raise KeyboardInterrupt
        return carry_out(step)

    monkeypatch.setattr(client, "_carry_out", interrupted)
    with pytest.raises(KeyboardInterrupt):
        client.translate(["text"] * 1_500, "en", "ja")
    assert [job["state"] for job in service.jobs.values()] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(("key", "state"), [(None, "cancelled"), ("order-7", "queued")])
def test_an_interrupted_submit_leaves_no_job_that_nobody_knows(
    client: Client,
    service: FakeService,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
    state: str,
) -> None:
    service.held.clear()
    carry_out, carried = client._carry_out, list[Any]()

    def interrupted_once(step: Any) -> Any:
        answer = carry_out(step)
        carried.append(step)
        if len(carried) == 1:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(client, "_carry_out", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        client.submit(["text"], "en", "ja", idempotency_key=key)
    assert [job["state"] for job in service.jobs.values()] == [state]


def test_a_failed_record_does_not_hide_the_others(client: Client) -> None:
    results = client.results(["good", "poison"], "en", "ja")
    assert results[0].text == "GOOD"
    assert results[1].error == dragoman.RecordError("poison", "it cannot be done")
    with pytest.raises(dragoman.RecordsFailed, match="1 of 2 texts") as caught:
        client.translate(["good", "poison"], "en", "ja")
    assert caught.value.results == results


def test_all_records_failed_is_not_a_transport_error(client: Client, service: FakeService) -> None:
    records = [{"id": "0", "error": {"code": "expired", "detail": "too late"}}]
    service.script.append(Scripted(504, problem(504, "expired", "Too late.") | {"result": records}))
    (result,) = client.results(["x"], "en", "ja")
    assert result.error == dragoman.RecordError("expired", "too late")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, dragoman.InvalidRequest),
        (404, dragoman.NotFound),
        (422, dragoman.InvalidRequest),
        (500, dragoman.ServerError),
    ],
)
def test_problems_become_typed_exceptions(
    client: Client, service: FakeService, status: int, kind: type[dragoman.ServerError]
) -> None:
    service.script.append(Scripted(status, problem(status, "some_code", "Say it plainly.")))
    with pytest.raises(kind, match=r"Say it plainly\.") as caught:
        client.translate("hello", "en", "ja")
    assert (caught.value.status, caught.value.code) == (status, "some_code")


def test_an_answer_that_is_not_ours_is_said_to_be(client: Client, service: FakeService) -> None:
    service.script.append(Scripted(200, b"<html>Welcome to nginx</html>"))
    with pytest.raises(dragoman.UnexpectedAnswer, match="is this Dragoman"):
        client.translate("hello", "en", "ja")
    service.script.append(Scripted(413, b"<html>too large</html>"))
    with pytest.raises(dragoman.InvalidRequest, match="413"):
        client.translate("hello", "en", "ja")


def test_overload_is_waited_out_as_long_as_the_server_asks(service: FakeService) -> None:
    refusal = Scripted(503, problem(503, "overloaded", "Later."), {"Retry-After": "0.2"})
    service.script.extend([refusal, refusal])
    with Client(service.url, retries=Retries(first_delay_s=60)) as client:
        begun = time.monotonic()
        assert client.submit(["hello"], "en", "ja").wait()[0].text == "HELLO"
    assert time.monotonic() - begun >= 0.4


def test_a_tenant_above_its_cap_waits_as_long_as_the_server_asks(
    client: Client, service: FakeService
) -> None:
    refusal = problem(429, "tenant_overloaded", "Yours.")
    service.script.append(Scripted(429, refusal, {"Retry-After": "0"}))
    assert client.translate("hello", "en", "ja") == "HELLO"


@pytest.mark.parametrize(("code", "asked"), [("too_late", "0"), ("overloaded", "601")])
def test_what_waiting_does_not_mend_is_raised_at_once(
    client: Client, service: FakeService, code: str, asked: str
) -> None:
    service.script.append(Scripted(503, problem(503, code, "No."), {"Retry-After": asked}))
    with pytest.raises(dragoman.Overloaded, match=r"No\.") as caught:
        client.submit(["hello"], "en", "ja")
    assert caught.value.code == code
    assert len(service.seen) == 1


def test_overload_that_lasts_is_raised(client: Client, service: FakeService) -> None:
    refusal = Scripted(503, problem(503, "overloaded", "Later."), {"Retry-After": "0.01"})
    service.script.extend([refusal] * 3)
    with pytest.raises(dragoman.Overloaded, match=r"Later\.") as caught:
        client.translate("hello", "en", "ja")
    assert caught.value.retry_after_s == 0.01


def test_a_submit_whose_answer_was_lost_is_sent_again_with_the_same_key(
    client: Client, service: FakeService
) -> None:
    client.languages()  # a connection that is kept
    service.script.append(Scripted(drop=True))
    assert client.submit(["hello"], "en", "ja").status.total == 1
    first, second = service.calls("POST", "/jobs")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_the_callers_key_is_the_same_job(client: Client) -> None:
    first = client.submit(["hello"], "en", "ja", idempotency_key="order-7")
    assert client.submit(["hello"], "en", "ja", idempotency_key="order-7").id == first.id


def test_nobody_there() -> None:
    with (
        Client("http://127.0.0.1:9", retries=QUICK) as client,
        pytest.raises(dragoman.ServerUnreachable, match=r"no answer from http://127\.0\.0\.1:9/"),
    ):
        client.translate("hello", "en", "ja")


def test_a_job_from_submit_to_its_end(client: Client, service: FakeService) -> None:
    service.held.clear()
    job = client.submit(["one", "two"], "en", "ja")
    assert not job.refresh().finished
    with pytest.raises(dragoman.NotInTime):
        job.wait(timeout_s=0.05)
    service.held.set()
    assert [result.text for result in job.wait()] == ["ONE", "TWO"]
    assert client.job(job.id).status.done == 2
    with pytest.raises(dragoman.NotFound):
        client.job("0" * 34 + "/../languages")


def test_a_cancelled_job_says_so(client: Client, service: FakeService) -> None:
    service.held.clear()
    job = client.submit(["one"], "en", "ja")
    job.cancel()
    with pytest.raises(dragoman.JobCancelled):
        job.wait()


def test_events_survive_a_broken_stream(client: Client, service: FakeService) -> None:
    job = client.submit(["one", "two", "three"], "en", "ja")
    service.jobs[job.id]["breaks"] = True
    assert [result.text for result in job.events()] == ["ONE", "TWO", "THREE"]
    assert len(service.calls("GET", f"/jobs/{job.id}/events")) == 2


def test_events_of_an_unknown_job(client: Client, service: FakeService) -> None:
    job = client.submit(["one"], "en", "ja")
    service.jobs.clear()
    with pytest.raises(dragoman.NotFound):
        list(job.events())


def test_languages(client: Client) -> None:
    assert client.languages() == {"en": "English", "ja": "Japanese"}


def test_a_server_that_shuts_down_leaves_the_work_at_its_location(
    client: Client, service: FakeService
) -> None:
    job = client.submit(["hello"], "en", "ja")
    leaving = problem(503, "draining", "Read it at the Location.")
    service.script.append(Scripted(503, leaving, {"Location": f"/jobs/{job.id}"}))
    assert client.translate("hello", "en", "ja") == "HELLO"
    assert len(service.calls("POST", "/translation")) == 1


def test_an_address_that_is_no_url_is_said_at_once() -> None:
    with Client("127.0.0.1:9527") as client, pytest.raises(dragoman.ServerUnreachable, match="//"):
        client.translate("hello", "en", "ja")


def test_retries_end_with_the_callers_time(service: FakeService) -> None:
    refusal = Scripted(503, problem(503, "overloaded", "Later."), {"Retry-After": "20"})
    service.script.append(refusal)
    with Client(service.url) as client, pytest.raises(dragoman.Overloaded):
        client.translate("hello", "en", "ja", timeout_s=5)
    assert len(service.seen) == 1
