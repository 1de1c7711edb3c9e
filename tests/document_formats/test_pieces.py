"""Long texts in pieces, and what cannot be sent."""

from hypothesis import given
from hypothesis import strategies as st

from document_formats.pieces import MOST_CHARS, count, pieces, sendable, texts
from document_formats.spans import Span


@given(st.text(max_size=40), st.integers(0, 800))
def test_pieces_join_to_the_text(seed: str, times: int) -> None:
    text = seed * times
    found = pieces(text)
    assert "".join(found) == text
    assert all(len(piece) <= MOST_CHARS for piece in found)


def test_texts_are_cut_behind_sentences() -> None:
    sentence = "This is a sentence of some length. "
    found = pieces(sentence * 300)
    assert all(piece.endswith(". ") for piece in found)
    assert len(pieces("長い文章です。" * 1_000)) == 2
    assert pieces("長い文章です。" * 1_000)[0].endswith("。")
    assert [len(piece) for piece in pieces("x" * 12_000)] == [5_000, 5_000, 2_000]


def test_half_characters_are_counted_and_not_sent() -> None:
    spans = [Span(0, 1, 1, "a"), Span(1, 2, 1, "b\ud800"), Span(2, 3, 1, "c" * 6_000)]
    assert not sendable(spans[1].text)
    assert [len(text) for text in texts(spans)] == [1, 5_000, 1_000]
    assert count(spans) == 4
