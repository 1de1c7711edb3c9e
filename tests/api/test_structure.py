"""Tests of ``api.structure``: bodies in pieces of any size."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.problems import Problem
from api.schemas import MAX_RECORDS
from api.structure import MAX_DEPTH, MAX_STRUCTURES, Structure


def looked_at(body: bytes, sizes: Iterable[int] = ()) -> Structure:
    structure, at = Structure(), 0
    for size in sizes:
        structure.feed(body[at : at + size])
        at += size
    structure.feed(body[at:])
    return structure


def refusal(body: bytes, sizes: Iterable[int] = ()) -> str:
    with pytest.raises(Problem) as caught:
        looked_at(body, sizes)
    return caught.value.code


def request(records: int, **more: Any) -> bytes:
    given = [{"id": index, "text": 'a "quoted" [text] \\'} for index in range(records)]
    payload = {"fromLang": "en", "records": given, "toLang": "ja", **more}
    return json.dumps({"payload": payload}).encode()


PIECES = st.lists(st.integers(0, 40), max_size=60)


@pytest.mark.parametrize("size", [1, 7, 1_000_000])
def test_the_largest_request_passes(size: int) -> None:
    looked_at(request(MAX_RECORDS), [size] * 200_000 if size == 1 else [size] * 9_000)


@settings(max_examples=20)
@given(st.integers(1, 300))
def test_one_record_too_many_is_found_wherever_pieces_end(size: int) -> None:
    body = request(MAX_RECORDS + 1)
    assert refusal(body, [size] * (len(body) // size)) == "too_many_records"


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"payload": {"notes": [{}] * 2_000}}).encode(),
        json.dumps({"other": {"records": [{}] * 2_000}}).encode(),
        json.dumps({"payload": {"records": ["{"] * 2_000}}).encode(),
        json.dumps([{"payload": {"records": [[]] * 2_000}}]).encode(),
    ],
)
def test_nothing_else_counts_as_a_record(body: bytes) -> None:
    looked_at(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"payload":{"records":['])
def test_deep_nesting_is_found(opening: bytes) -> None:
    assert refusal(opening * (MAX_DEPTH + 1)) == "too_deep"


def test_depth_counts_what_is_open() -> None:
    looked_at(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    looked_at(b'{"a":"' + b"[" * 5_000 + b'"}')


def test_too_many_structures_are_found() -> None:
    looked_at(b"[" + b"[]," * (MAX_STRUCTURES - 1) + b"0]")
    assert refusal(b"[" + b"[]," * MAX_STRUCTURES) == "too_many_values"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["payload", "records", "x", '"', "\\", "["]), inner)
    ),
    max_leaves=30,
)


@given(VALUES, st.booleans(), PIECES)
def test_sound_json_ends_where_it_began(value: Any, ascii: bool, sizes: list[int]) -> None:
    structure = looked_at(json.dumps(value, ensure_ascii=ascii).encode(), sizes)
    assert (structure._depth, structure._in_string) == (0, False)


@given(st.binary(max_size=300), PIECES)
def test_pieces_change_nothing(body: bytes, sizes: list[int]) -> None:
    assert vars(looked_at(body, sizes)) == vars(looked_at(body)) | {
        "_before": looked_at(body, sizes)._before
    }
