from __future__ import annotations

import re
from pathlib import Path

import pytest

from models.training.sentences import (
    Split,
    clean,
    fold,
    held_out_pairs,
    is_usable,
    read_rows,
    read_split,
    training_pairs,
)
from models.training.tsv import Pair, read_pairs, write_pairs

LINES = [
    "1\tこれは本です。\tThis is a book.\t-\tDas ist ein Buch.\t-\t-\t-\t-\n",
    "2\t彼は走る。\tHe runs.\t-\tEr läuft.\tIl court.\t-\t-\t-\n",
    "3\t彼が走る！\tHe runs!\t-\tEr rennt.\t-\t-\t-\t-\n",
    "4\t猫が好きだ。\tI like cats.\t-\t-\tJ’aime les chats\u202f!\t-\t-\t-\n",
    "5\t猫が好きです。\tI like cats.\t-\t-\tJ'aime les chats !\t-\t-\t-\n",
]


@pytest.mark.parametrize(
    ("language", "raw", "expected"),
    [
        ("fr", "Essayons\u202f! C’était  «\u00a0bon\u00a0».", "Essayons ! C'était « bon »."),
        ("ja", "２０歳になりました。", "20歳になりました。"),
        ("ja", "静かにして! 音を立てないで。", "静かにして！音を立てないで。"),
        ("ja", "この近辺にATMはありますか?", "この近辺にATMはありますか?"),
        ("ja", "Ｋａｎｊｉ ｌｉｓｔ 機能", "Kanji list 機能"),
        ("de", "Ad\u00adres\u00adse u\u0308ber", "Adresse über"),
    ],
)
def test_clean_gives_one_spelling(language: str, raw: str, expected: str) -> None:
    assert clean(raw, language) == expected
    assert clean(expected, language) == expected


@pytest.mark.parametrize(
    ("source", "japanese", "usable"),
    [
        ("He runs every morning.", "彼は毎朝走る。", True),
        ("Two dogs fight for a bone, and the third runs away with it.", "漁夫の利。", False),
        ("No", "いいえ", False),
        ("The kanji 道", "道という漢字", False),
        ("x" * 161, "長" * 70, False),
    ],
)
def test_unusable_pairs_are_recognised(source: str, japanese: str, usable: bool) -> None:
    assert is_usable("en", source, "ja", japanese) is usable


def test_held_out_rows_leave_no_trace_in_training_data() -> None:
    rows = read_rows(LINES)
    split = Split({"dev": [], "test": [("en", "ja", "2")]}, frozenset())
    pairs = list(training_pairs(rows, split))
    held_out = {fold(text) for text in rows["2"].values()}
    sides = {fold(side) for pair in pairs for side in (pair.source, pair.target)}
    assert not sides & held_out
    # Row 3 shares its English (but for the punctuation) with row 2; its other sentences stay.
    assert Pair("de", "ja", "Er rennt.", "彼が走る！", "jpn#3") in pairs
    assert list(held_out_pairs(rows, split, "test")) == [
        Pair("en", "ja", "He runs.", "彼は走る。", "jpn#2")
    ]


def test_repeated_pairs_are_kept_once() -> None:
    pairs = list(training_pairs(read_rows(LINES), Split({"dev": [], "test": []}, frozenset())))
    french = [
        pair for pair in pairs if (pair.source_language, pair.target_language) == ("en", "fr")
    ]
    assert [pair.reference for pair in french] == ["jpn#2", "jpn#4"]


def test_the_shipped_split_holds_out_whole_rows() -> None:
    split = read_split()
    assert {part: len(lines) for part, lines in split.files.items()} == {"dev": 850, "test": 1000}
    dev, test = ({row for _, _, row in split.files[part]} for part in ("dev", "test"))
    assert not dev & test
    assert not split.withheld & (dev | test)
    assert all(re.fullmatch(r"\d+", row) for row in split.ids)


def test_pairs_survive_the_file(tmp_path: Path) -> None:
    pairs = [Pair("en", "ja", "a\u2028b", "猫", "jpn#1"), Pair("de", "en", "ß", "s", "jpn#2")]
    first, second = tmp_path / "first.gz", tmp_path / "second.gz"
    assert write_pairs(first, pairs) == 2
    write_pairs(second, pairs)
    assert list(read_pairs(first)) == pairs
    assert first.read_bytes() == second.read_bytes()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.gz"
    write_pairs(path, [Pair("en", "ja", "tab\there", "猫", "jpn#1")])
    with pytest.raises(ValueError, match=r"bad\.gz:1: 6 columns"):
        list(read_pairs(path))
