"""Tests of ``inference_worker.segments``, ``boundaries`` and ``protected``."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker import protected
from inference_worker.boundaries import MOST_CHARS_PER_TOKEN, fitting
from inference_worker.segments import split

WIDE = 10_000


def words(text: str) -> int:
    return len(text.split()) + 2


def characters(text: str) -> int:
    return len(text)


def sentences(text: str, language: str = "en", limit: int = WIDE) -> list[str]:
    return split(text, language, characters, limit).sentences


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("en", "He said “Go.” Then he left.", ["He said “Go.”", "Then he left."]),
        ("en", '"Who?" he asked. (Nobody.) Fine.', ['"Who?" he asked.', "(Nobody.)", "Fine."]),
        ("en", "Dr. J. R. Smith met Mr. Jones.", ["Dr. J. R. Smith met Mr. Jones."]),
        ("en", "See No. 5. No. I won't.", ["See No. 5.", "No.", "I won't."]),
        ("en", "It costs 3.50 dollars, e.g. in May.", ["It costs 3.50 dollars, e.g. in May."]),
        ("en", "Wait... what? Version 1.2.3 is out.", ["Wait... what?", "Version 1.2.3 is out."]),
        ("en", "It was 1999. Then it ended.", ["It was 1999.", "Then it ended."]),
        ("de", "Am 3. Oktober, z. B. Prof. Bär.", ["Am 3. Oktober, z. B. Prof. Bär."]),
        ("de", "Das war 1999. Danach kam er.", ["Das war 1999.", "Danach kam er."]),
        ("fr", "Bonjour M. Dupont. Ça va ?", ["Bonjour M. Dupont.", "Ça va ?"]),
        ("es", "¡Hola! ¿Qué tal? El Sr. Ruiz.", ["¡Hola!", "¿Qué tal?", "El Sr. Ruiz."]),
        ("ja", "はい。そうです！本当？ええ", ["はい。", "そうです！", "本当？", "ええ"]),
        ("ja", "「はい。いいえ。」と言った。次。", ["「はい。いいえ。」と言った。", "次。"]),
        ("ja", "「はい。」彼は笑った。", ["「はい。」", "彼は笑った。"]),
        ("ja", "本当?そう!ええ", ["本当?", "そう!", "ええ"]),
        ("ja", "円周率は３．１４です。", ["円周率は３．１４です。"]),
        ("zh", "你好。再见！", ["你好。", "再见！"]),
        ("hi", "यह है। वह है।", ["यह है।", "वह है।"]),
        ("ru", "А. С. Пушкин родился. Он умер.", ["А. С. Пушкин родился.", "Он умер."]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(
    language: str, text: str, expected: list[str]
) -> None:
    assert sentences(text, language) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "\n", " \t\r\n\u3000\u2028 ", "123", "3.14 %", "😀👍", "%s", "{name}", "$1"]
)
def test_nothing_to_translate_comes_back_as_it_is(text: str) -> None:
    segments = split(text, "en", characters, WIDE)
    assert segments.sentences == []
    assert segments.join([], "ja") == text


@pytest.mark.parametrize(
    "text", ["https://example.org/a?b=c.", "a@b.example", "<br/>", "&nbsp;", "`x = 1`", "----"]
)
def test_bare_markup_and_addresses_are_not_translated(text: str) -> None:
    assert sentences(text) == []


def test_layout_survives_translation() -> None:
    text = "  Hello.\r\n\r\n- One.  Two.\u2028\n1. Three\tFour\n\n😀 5\n  "
    segments = split(text, "en", characters, WIDE)
    assert segments.sentences == ["Hello.", "One.", "Two.", "Three", "Four"]
    joined = segments.join(["A.", "B.", "C.", "D", "E"], "de")
    assert joined == "  A.\r\n\r\n- B.  C.\u2028\n1. D\tE\n\n😀 5\n  "


def test_spaces_between_sentences_follow_the_target() -> None:
    english = split("One. Two.\nThree.", "en", characters, WIDE)
    assert english.join(["一。", "二。", "三。"], "ja") == "一。二。\n三。"
    assert english.join(["OK.", "二。", "三。"], "zh") == "OK. 二。\n三。"
    assert english.join(["ก", "ข", "ค"], "th") == "ก ข\nค"
    japanese = split("一。二。\n三。\u3000四。", "ja", characters, WIDE)
    assert japanese.join(["1.", "2.", "3.", "4."], "en") == "1. 2.\n3. 4."
    assert japanese.join(["一。", "二。", "三。", "四。"], "zh") == "一。二。\n三。\u3000四。"


@pytest.mark.parametrize(
    "span",
    [
        "https://example.org/wiki/A_(b)?c=d!e",
        "mail.me@example.co.jp",
        '<a href="x. Y">',
        "<!-- Stop. Go. -->",
        "{name. Other}",
        "{{ x. Y }}",
        "%(name)s",
        "%1$s",
        "${a. B}",
        "`run. Now`",
    ],
)
@pytest.mark.parametrize("limit", [WIDE, 12])
def test_protected_spans_stay_whole(span: str, limit: int) -> None:
    text = f"Say it, {span} please. And then, at last, {span} again and again."
    segments = split(text, "en", characters, limit)
    whole = [part.text for part in segments.parts if span in part.text]
    assert len(whole) == 2
    assert segments.join(segments.sentences, "en") == text


def test_the_stop_after_an_address_ends_the_sentence() -> None:
    text = "See https://example.org/a. Then go."
    assert sentences(text) == ["See https://example.org/a.", "Then go."]
    assert protected.spans(text) == [(4, 25)]


def test_long_sentences_are_cut_at_clauses_then_words_then_characters() -> None:
    clauses = "one two three, four five six, seven eight nine"
    assert split(clauses, "en", words, 6).sentences == [
        "one two three,",
        "four five six,",
        "seven eight nine",
    ]
    assert split("a b c d e f g", "en", words, 5).sentences == ["a b c", "d e f", "g"]
    assert sentences("あいう、えおかきくけ", "ja", 5) == ["あいう、", "えおかきく", "け"]
    assert sentences("x" * 25, "en", 10) == ["x" * 10, "x" * 10, "x" * 5]


def test_cuts_tear_no_letter_from_its_marks() -> None:
    pieces = list(fitting("e\u0301" * 6, lambda text: len(text) <= 5, 5))
    assert "".join(pieces) == "e\u0301" * 6
    assert all(piece.startswith("e") for piece in pieces)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 2_000,
        "a" + "\u0301" * 5_000 + " word",
        "a\u200d" * 5_000,
        "word " * 200 + " " * 5_000 + f"`{'x' * 5_000}`",
    ],
    ids=["words", "marks", "joiners", "spaces"],
)
def test_a_long_line_is_taken_apart_in_little_time(text: str) -> None:
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return len(text) // 4 + 2

    segments = split(text, "en", count, 128)
    assert segments.join(segments.sentences, "en") == text
    assert counted < 1_000_000


@pytest.mark.parametrize("char", [" ", "\u200b", "\U00012000"])
def test_no_sentence_is_long_because_the_model_counts_it_as_short(char: str) -> None:
    """Spaces count as one, and so does a stretch of what the model does not know."""
    text = f"Hello {char * 9_000} world."
    segments = split(text, "en", words, 128)
    assert segments.join(segments.sentences, "en") == text
    assert max(map(len, segments.sentences)) <= 128 * MOST_CHARS_PER_TOKEN


CHARACTERS = "aZ9 é.!?,;:…\"'()[]「」『』（）。、！？あ漢ア한ก।😀<>%{}$@/-*#"
STRANGE = "\t\n\r\u2028\x85\x0b\u3000\xa0\u200d\u0301"
STRETCHES = ["\r\n", "Dr. ", "https://a.b/c. ", "%s", "{{x}}", "<b>", "a@b.cd", "1. ", "- "]
ALPHABET = st.sampled_from([*CHARACTERS, *STRANGE, *STRETCHES])


@given(
    text=st.lists(ALPHABET, max_size=60).map("".join) | st.text(max_size=60),
    language=st.sampled_from(["en", "ja", "de", "zh", "th"]),
    limit=st.sampled_from([1, 3, 8, WIDE]),
)
def test_untranslated_segments_join_to_the_text(text: str, language: str, limit: int) -> None:
    segments = split(text, language, characters, limit)
    assert segments.join(segments.sentences, language) == text
    for sentence in segments.sentences:
        assert sentence == sentence.strip() != ""
        assert len(sentence) <= limit
        assert "\n" not in sentence
        assert "\r" not in sentence


@given(text=st.lists(ALPHABET, max_size=60).map("".join))
def test_no_part_ends_inside_a_protected_span(text: str) -> None:
    segments = split(text, "en", characters, 4)
    position, cuts = 0, []
    for gap, part in itertools.zip_longest(segments.gaps, segments.parts):
        position += len(gap)
        cuts.append(position)
        if part is not None:
            position += len(part.text)
            cuts.append(position)
    spans = [(a, b) for a, b in protected.spans(text) if "\t" not in text[a:b]]
    separators = "\n\r\u2028\x85\x0b"
    for start, end in spans:
        if not any(char in separators for char in text[start:end]):
            assert not [cut for cut in cuts if start < cut < end]


@given(
    newlines=st.lists(st.sampled_from(["\n", "\r\n", "\r", "\u2028", "\n\n"]), max_size=6),
    target=st.sampled_from(["ja", "de", "th"]),
)
def test_newlines_survive_into_every_language(newlines: list[str], target: str) -> None:
    text = "".join(f"Line {chr(97 + i)}. Go.{end}" for i, end in enumerate(newlines)) + "End"
    segments = split(text, "en", characters, WIDE)
    joined = segments.join(["x"] * len(segments.sentences), target)
    found = re.compile("\r\n|[\n\r\u2028]").findall
    assert found(joined) == found(text)
