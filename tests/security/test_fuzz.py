"""A bounded share of fuzzing: hostile requests against the whole service, hostile bytes for every
type that crosses Redis. An hour of the former is ``make fuzz``."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import documents, wire
from tests.security import fuzz

MOST_BYTES = 400
WIRE = [
    kind
    for module in (wire, documents)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and issubclass(kind, msgspec.Struct)
    and kind.__module__ == module.__name__
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


def shapes(kind: type[msgspec.Struct]) -> st.SearchStrategy[bytes]:
    """Bytes, JSON, and objects with the members of a type but anything in them."""
    fields = {field.encode_name: VALUES for field in msgspec.structs.fields(kind)}
    objects = st.fixed_dictionaries({}, optional=fields)
    return st.binary(max_size=MOST_BYTES) | (VALUES | objects).map(msgspec.json.encode)


def test_every_type_that_crosses_redis_is_found() -> None:
    names = {kind.__name__ for kind in WIRE}
    assert {"Record", "Outcome", "Submission", "ModelEntry", "WorkerEntry", "Upload"} <= names


@pytest.mark.parametrize("kind", WIRE)
def test_decoding_ends_in_a_value_or_in_one_error(kind: type[msgspec.Struct]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(shapes(kind))
    def attack(body: bytes) -> None:
        try:
            value = msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # ValidationError is a DecodeError
        assert isinstance(value, kind)
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value

    attack()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_hostile_requests_find_nothing() -> None:
    assert fuzz.main(["--minutes", "0", "--examples", "2", "--round-s", "20"]) == 0
