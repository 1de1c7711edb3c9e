"""Every body that is not a request is a 4xx Problem that names the field and repeats nothing."""

import json
from typing import Any

import pytest

from api.decoding import parse
from api.problems import Problem
from api.schemas import MAX_TEXT_BYTES

DEEP = 50_000
LONG_INTEGER = b"9" * 6_000
SECRET = "Geheimnis"


def raw(record: bytes, rest: bytes = b"") -> bytes:
    return (
        b'{"payload":{"fromLang":"en","toLang":"ja","records":[{"id":1,"text":"one"},'
        + record
        + b"]"
        + rest
        + b"}}"
    )


def refused(body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        parse(body)
    problem = caught.value
    assert 400 <= problem.status < 500
    assert SECRET not in problem.detail
    assert problem.field
    assert problem.field in problem.detail or problem.field == "body"
    assert len(problem.detail) < 300
    return problem


def test_a_request_decodes() -> None:
    request = parse(raw(b'{"id":"a","text":"two\\nlines","mood":[1,{}]}', b',"also":null'))
    assert [record.id for record in request.payload.records] == [1, "a"]
    assert request.payload.records[1].text == "two\nlines"


@pytest.mark.parametrize(
    "id", ["", "x" * 256, 0, -1, 2**63 - 1, -(2**63), "123", "日本", "a\u0000b"]
)
def test_ids_come_through_exactly(id: str | int) -> None:
    body = {"payload": {"fromLang": "en", "toLang": "ja", "records": [{"id": id, "text": ""}]}}
    kept = parse(json.dumps(body).encode()).payload.records[0].id
    assert kept == id
    assert type(kept) is type(id)


@pytest.mark.parametrize(
    "text",
    ["", " \n\t ", "__ja__ </s>", "\u0000", "a\r\nb\n\n", "👩‍👩‍👧", "x" * 10_000, "🎈" * 10_000],
)
def test_texts_come_through_exactly(text: str) -> None:
    body = {"payload": {"fromLang": "en", "toLang": "ja", "records": [{"id": 1, "text": text}]}}
    for ascii in (True, False):
        assert parse(json.dumps(body, ensure_ascii=ascii).encode()).payload.records[0].text == text


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse(b"\xef\xbb\xbf" + raw(b'{"id":2,"text":"two"}')).payload.from_lang == "en"


def test_of_two_members_with_one_name_the_last_counts() -> None:
    assert parse(raw(b'{"id":2,"id":3,"text":"two"}')).payload.records[1].id == 3


@pytest.mark.parametrize(
    ("record", "field", "code"),
    [
        (b'{"id":2}', "payload.records[1].text", "missing_field"),
        (b'{"text":"two"}', "payload.records[1].id", "missing_field"),
        (b'{"id":2,"text":7}', "payload.records[1].text", "wrong_type"),
        (b'{"id":2,"text":null}', "payload.records[1].text", "wrong_type"),
        (b'{"id":2.5,"text":""}', "payload.records[1].id", "wrong_type"),
        (b'{"id":2.0,"text":""}', "payload.records[1].id", "wrong_type"),
        (b'{"id":true,"text":""}', "payload.records[1].id", "wrong_type"),
        (b'{"id":null,"text":""}', "payload.records[1].id", "wrong_type"),
        (b'"Geheimnis"', "payload.records[1]", "wrong_type"),
        (b'{"id":2,"text":"' + b"x" * 10_001 + b'"}', "payload.records[1].text", "text_too_long"),
        (b'{"id":"' + b"x" * 257 + b'","text":""}', "payload.records[1].id", "invalid_value"),
        (b'{"id":9223372036854775808,"text":""}', "payload.records[1].id", "invalid_value"),
        (b'{"id":' + LONG_INTEGER + b',"text":""}', "payload.records[1].id", "number_out_of_range"),
        (
            b'{"id":2,"text":' + LONG_INTEGER + b"}",
            "payload.records[1].text",
            "number_out_of_range",
        ),
        (b'{"id":2,"text":' + b"[" * DEEP + b"}", "payload.records[1].text", "wrong_type"),
        (b"[" * DEEP, "payload.records[1]", "wrong_type"),
    ],
)
def test_a_record_that_does_not_fit_is_422(record: bytes, field: str, code: str) -> None:
    problem = refused(raw(record))
    assert (problem.status, problem.field, problem.code) == (422, field, code)


@pytest.mark.parametrize(
    ("body", "remedy"),
    [
        (raw(b'{"id":"' + b"x" * 257 + b'","text":""}'), "more than 256 characters. Shorten it."),
        (raw(b'{"id":9223372036854775808,"text":""}'), "not fit in 64 bits. Send it as a string."),
        (
            raw(b'{"id":2,"text":""}').replace(b'"en"', b'""'),
            "payload.fromLang is empty. Fill it in.",
        ),
        (b'{"payload": nonsense}', "not valid JSON at byte 16. Send one object."),
    ],
)
def test_the_remedy_is_told(body: bytes, remedy: str) -> None:
    assert refused(body).detail.endswith(remedy)


@pytest.mark.parametrize(
    ("record", "field", "code"),
    [
        (b'{"id":2,"text":"Geheimnis \\ud800"}', "payload.records[1].text", "invalid_unicode"),
        (b'{"id":2,"text":"\\udc00 Geheimnis"}', "payload.records[1].text", "invalid_unicode"),
        (b'{"id":"\\ud83d!","text":""}', "payload.records[1].id", "invalid_unicode"),
        (b'{"id":2,"text":"\xed\xa0\x80"}', "payload.records[1].text", "invalid_utf8"),
        (b'{"id":2,"text":"\xff Geheimnis"}', "payload.records[1].text", "invalid_utf8"),
        (b'{"id":"\xc3","text":""}', "payload.records[1].id", "invalid_utf8"),
        (b'{"id":2,"text":"","Geheimnis":"\xff"}', "payload.records[1]", "invalid_utf8"),
        (b'{"id":2,"text":"","Geheimnis\xff":0}', "payload.records[1]", "invalid_utf8"),
        (b'{"id":NaN,"text":""}', "payload.records[1].id", "malformed_json"),
        (b'{"id":2,"text":Infinity}', "payload.records[1].text", "malformed_json"),
        (b'{"id":2,"text":-Infinity}', "payload.records[1].text", "malformed_json"),
        (b'{"id":2,"text":"","Geheimnis":NaN}', "payload.records[1]", "malformed_json"),
    ],
)
def test_what_is_not_json_in_utf8_is_400(record: bytes, field: str, code: str) -> None:
    problem = refused(raw(record))
    assert (problem.status, problem.field, problem.code) == (400, field, code)


@pytest.mark.parametrize(
    ("body", "field", "status"),
    [
        (b"", "body", 400),
        (b" \n", "body", 400),
        (b"\xef\xbb\xbf", "body", 400),
        (b"Geheimnis", "body", 400),
        (b'{"payload":', "body", 400),
        (raw(b'{"id":2,"text":"Geheimnis"}') + b"}", "body", 400),
        (raw(b'{"id":2,"text":"a\x00b"}'), "body", 400),
        (b'{"x":' + b"[" * DEEP, "body", 400),
        (b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}", "body", 400),
        (b'{"x":' + b'{"y":' * DEEP + b"1" + b"}" * DEEP + b"}", "body", 400),
        (b"\xff\xfe{\x00}\x00", "body", 400),
        (b"[" * DEEP, "body", 422),
        (b"null", "body", 422),
        (b"7", "body", 422),
        (b"[]", "body", 422),
        (b"{}", "payload", 422),
        (b'{"payload":[]}', "payload", 422),
        (b'{"payload":{"toLang":"ja"}}', "payload.fromLang", 422),
        (b'{"payload":{"fromLang":"en","records":[]}}', "payload.records", 422),
        (b'{"payload":{"fromLang":7,"toLang":"ja","records":[]}}', "payload.fromLang", 422),
        (b'{"payload":{"fromLang":"","toLang":"ja","records":[]}}', "payload.fromLang", 422),
        (b'{"payload":{"fromLang":"en","toLang":"ja","records":{}}}', "payload.records", 422),
        (b'{"payload":{"fromLang":"en","toLang":"ja"}}', "payload.records", 422),
    ],
)
def test_other_bodies(body: bytes, field: str, status: int) -> None:
    problem = refused(body)
    assert (problem.field, problem.status) == (field, status)


def records(count: int, text: str) -> bytes:
    document: dict[str, Any] = {
        "payload": {
            "fromLang": "en",
            "toLang": "ja",
            "records": [{"id": index, "text": text} for index in range(count)],
        }
    }
    return json.dumps(document).encode()


def test_a_thousand_records_fit_and_one_more_does_not() -> None:
    assert len(parse(records(1_000, "x")).payload.records) == 1_000
    assert refused(records(1_001, "x")).code == "too_many_records"


def test_text_is_counted_in_utf8_over_all_records() -> None:
    whole = MAX_TEXT_BYTES // 128
    assert parse(records(128, "x" * whole))
    problem = refused(records(129, "x" * whole))
    assert (problem.status, problem.code) == (413, "too_much_text")
    assert refused(records(350, "あ" * 1_000)).code == "too_much_text"
    assert parse(records(300, "あ" * 1_000))


def test_a_long_broken_body_is_not_searched() -> None:
    body = raw(b'{"id":2,"text":"\xff"}', b',"pad":"' + b" " * 1_100_000 + b'"')
    assert refused(body).field == "body"
