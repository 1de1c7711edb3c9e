"""Tests of ``inference_worker.quality.numbers``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_worker.quality.numbers import figures, lost, value


@pytest.mark.parametrize(
    ("numeral", "expected"),
    [
        ("三百五", 305),
        ("一九八七", 1987),
        ("十", 10),
        ("二千十一", 2011),
        ("2万5千", 25_000),
        ("1億2000万", 120_000_000),
        ("〇", 0),
    ],
)
def test_chinese_numerals_have_values(numeral: str, expected: int) -> None:
    assert value(numeral) == expected


@given(st.integers(0, 10**12 - 1))
def test_a_number_spelled_in_chinese_numerals_is_itself(number: int) -> None:
    spelled = ""
    for unit, power in (("億", 10**8), ("万", 10**4), ("", 1)):
        part = number // power % (10**4)
        if part:
            spelled += f"{part}{unit}"
    assert value(spelled or "0") == number


@given(st.integers(0, 10**9), st.sampled_from([",", ".", " ", "'", "\u202f", ""]))
def test_separators_do_not_matter(number: int, separator: str) -> None:
    written = f"{number:,}".replace(",", separator)
    assert [figure.value for figure in figures(f"About {written} people")] == [number]


@pytest.mark.parametrize(
    ("source", "translation", "target"),
    [
        ("She was born in 1987.", "Sie wurde 1987 geboren.", "de"),
        ("It costs 1,250.50 dollars.", "Es kostet 1.250,50 Dollar.", "de"),
        ("5 million people", "500万人", "ja"),
        ("He has 5 cars.", "彼は車を五台持っている。", "ja"),
        ("They met at 2:30.", "2時半に会った。", "ja"),
        ("It begins at 9:00.", "9時に始まる。", "ja"),
        ("Es beginnt um 18 Uhr.", "It begins at 6 p.m.", "en"),
        ("Ich nehme den 10.30 Uhr-Zug.", "I take the 10:30 train.", "en"),
        ("15歳です。", "I am fifteen.", "en"),
        ("He only had 100 dollars.", "Er hatte nur hundert Dollar.", "de"),
        ("２０１１年です。", "It is 2011.", "en"),
        ("٢٠١١", "2011", "en"),
        ("There are no numbers.", "1 2 3", "de"),
        ("3.50 kg", "3,5 kg", "de"),
        ("1.5 million people", "150万人", "ja"),
        ("1,00,000 rupees", "100.000 Rupien", "de"),
        ("born in the 1950s", "née dans les années 50", "fr"),
        ("765万9000個となった。", "It totalled 7,659,000 units.", "en"),
        ("人口は1億2765万人です。", "The population is 127.65 million.", "en"),
        ("778億ドル", "$77.8 billion", "en"),
        ("Es ist 6.30 Uhr.", "6時半です。", "ja"),
        ("v1.2.3", "v1.2.3", "ja"),
    ],
)
def test_what_is_said_otherwise_is_not_lost(source: str, translation: str, target: str) -> None:
    assert lost(source, translation, target) == []


@pytest.mark.parametrize(
    ("source", "translation", "target", "expected"),
    [
        ("She was born in 1987.", "Sie wurde 1978 geboren.", "de", [1987]),
        ("She was born in 1987.", "Sie wurde geboren.", "de", [1987]),
        ("I have 12 oranges.", "Ich habe 122 Orangen.", "de", [12]),
        ("There are 26 letters.", "文字があります。", "ja", [26]),
        ("She is 18 years old.", "Sie ist 180 Jahre alt.", "de", [18]),
        ("200 dollars", "20000ドル", "ja", [200]),
        ("From 1914 to 1918.", "Von 1914 an.", "de", [1918]),
        ("3,000円", "30,00 yen.", "en", [3_000]),
        ("I bought 3.5 kg of rice.", "Ich habe 35 kg gekauft.", "de", [3.5]),
        ("He paid 12 dollars.", "Er zahlte 1,2 Dollar.", "de", [12]),
        ("765万9000個となった。", "It totalled 7,695,000 units.", "en", [765, 9_000]),
    ],
)
def test_what_is_gone_or_changed_is_lost(
    source: str, translation: str, target: str, expected: list[float]
) -> None:
    assert [figure.value for figure in lost(source, translation, target)] == expected


@given(st.text(), st.text(), st.sampled_from(["ja", "de"]))
def test_any_text_has_an_answer_and_a_copy_loses_nothing(one: str, other: str, target: str) -> None:
    for figure in lost(one, other, target):
        assert any(map(str.isdigit, one[slice(*figure.span)]))
    assert lost(one, one, target) == []
