"""Batches: bounds, order, and names that depend on their texts alone."""

from hypothesis import given
from hypothesis import strategies as st

from document_worker.batches import MOST_BYTES, MOST_TEXTS, batches


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=5), max_size=600))
def test_batches_hold_all_texts_in_order(texts: list[str]) -> None:
    found = list(batches(texts))
    assert [text for batch in found for text in batch.texts] == texts
    assert all(1 <= len(batch.texts) <= MOST_TEXTS for batch in found)


def test_batches_are_bounded_in_bytes() -> None:
    found = list(batches(["字" * 5_000] * 100))
    assert len(found) > 1
    for batch in found:
        assert sum(len(text.encode()) for text in batch.texts) <= MOST_BYTES


def test_a_digest_names_the_texts_and_where_they_end() -> None:
    digests = {batch.digest for texts in (["ab", "c"], ["a", "bc"], ["abc"]) for batch in
               batches(texts)}  # fmt: skip
    assert len(digests) == 3
    assert next(batches(["ab", "c"])).digest in digests
