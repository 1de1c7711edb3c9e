"""Tests of ``inference_worker.quality.pieces``: sentences around what must stay as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.quality import spans
from inference_worker.quality.pieces import Pieces, cut


def done(source: str, target: str, *translations: str) -> str:
    pieces = cut(source, target)
    assert pieces is not None
    assert len(pieces.texts) == len(translations)
    for translation in translations:
        pieces = pieces.translated(translation, -1.0)
    assert pieces.next is None
    return pieces.joined


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("Hello {name}, see https://a.example/b.", ("Hello", "see")),
        ("{a} of {b} files were copied.", ("of", "files were copied")),
        ("{name}さん、https://a.example を見て。", ("さん", "を見て")),
        ("Click <b>here</b>!", ("Click", "here")),
        ("Room 12 of {house}", ("Room 12 of",)),
        ("😀 Hello {name} 👍🏽, see you 🇯🇵", ("Hello", "see you")),
    ],
)
def test_words_between_what_is_kept_are_the_pieces(source: str, texts: tuple[str, ...]) -> None:
    pieces = cut(source, "de")
    assert pieces is not None
    assert pieces.texts == texts
    assert pieces.next == texts[0]


@pytest.mark.parametrize(
    "source", ["No placeholder.", "Hello 😀 you", "{a} {b}", "{a}: 12, {b}", ""]
)
def test_there_may_be_nothing_to_cut(source: str) -> None:
    assert cut(source, "de") is None


def test_a_piece_is_fitted_into_the_sentence() -> None:
    source = "Hello {name}, please read %s before noon."
    assert done(source, "fr", "Bonjour.", "Lisez.", "Avant midi.") == (
        "Bonjour {name}, lisez %s avant midi."
    )
    assert done(source, "de", "Hallo.", "Lesen", "Mittags") == "Hallo {name}, Lesen %s Mittags."
    assert done(source, "ja", "やあ。", "読んで。", "昼前に") == "やあ {name}、読んで %s 昼前に。"
    assert done("Is {a} it?", "es", "¿Es", "Ella?") == "¿Es {a} ella?"
    assert done("「{a}」は、良い。", "en", "Is good.") == "「{a}」Is good."


def test_scores_are_the_mean_of_the_pieces() -> None:
    assert Pieces(("", " ", ""), ("a", "b"), "de", ("x", "y"), (-1.0, -3.0)).score == -2.0


@given(
    st.lists(
        st.sampled_from(
            ["{a}", "%s", "😀", "❤️", "https://e.example/x", "ok", "Wörter", ", ", ". ", " "]
        )
    ),
    st.sampled_from(["de", "ja"]),
)
def test_nothing_that_must_stay_is_lost(parts: list[str], target: str) -> None:
    source = " ".join(parts)
    pieces = cut(source, target)
    if pieces is None:
        return
    for number in range(len(pieces.texts)):
        pieces = pieces.translated(f"t{number}", 0.0)
    kept = spans.kept(source) + spans.emoji(source)
    assert spans.missing(source, kept, pieces.joined) == 0
