"""Tests of ``inference_worker.quality.checks`` and of what it counts on: loops, scripts, words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workload import read_texts
from inference_worker.languages import M2M100_CODES
from inference_worker.quality.checks import examine

MOST_FALSE_ALARMS = 0.005  # of the translations by people, for each check


@pytest.mark.parametrize(
    ("source", "translation", "languages", "code"),
    [
        ("Hello!", "", "en-de", "empty"),
        ("Hello!", "... !", "en-de", "empty"),
        ("I know.", "Ich weiß weiß weiß weiß weiß.", "en-de", "repetition"),
        ("If you please.", "Por favor, por favor, por favor.", "en-es", "repetition"),
        ("彼は来た。", "Es wurde zu Fuß zu Fuß zu Fuß zu Fußball.", "ja-de", "repetition"),
        ("He came to them all.", "みんなみんなみんなみんなで暮らしていた。", "en-ja", "repetition"),
        ("What?", "AAAAAAAAAAAA?", "en-de", "repetition"),
        (
            "Yes.",
            "Ja, das ist ein sehr langer Satz, der nichts damit zu tun hat.",
            "en-de",
            "length",
        ),
        ("That is a very long sentence that goes on and on and on.", "Ja.", "en-de", "length"),
        ("My friend bought a book.", "My friend bought a book.", "en-de", "copied"),
        ("My old friend bought a book.", "My friend bought a Book, ja.", "en-de", "copied"),
        ("Where is the station?", "Wo ist der Bahnhof?", "en-ja", "wrong_script"),
        ("I named the kitten Tama.", "J'ai名前 la crétaire.", "en-fr", "wrong_script"),
        ("駅はどこですか。", "駅はどこですか。", "ja-en", "wrong_script"),
        ("Where is the station?", "Где вокзал?", "en-de", "wrong_script"),
        ("Where is the station?", "请问地铁车站究竟在什么地方", "en-ja", "wrong_script"),
        (
            "Where is the station?",
            "Wo ist die Station, und was ist das?",
            "en-fr",
            "wrong_language",
        ),
        ("駅はどこですか。", "Where is the station that he was at?", "ja-de", "wrong_language"),
        ("Hello {name}!", "Hallo!", "en-de", "lost_placeholder"),
        ("Hello {name}!", "{name}, hallo {name}!", "en-de", "lost_placeholder"),
        (
            "See https://a.example/a-b now.",
            "See https://a.example/a-b now.",
            "en-ja",
            "wrong_script",
        ),
        ("See http://a.example now.", "Sieh jetzt.", "en-de", "lost_address"),
        ("I love you 😀", "Ich liebe dich", "en-de", "lost_emoji"),
        ("Born in 1987.", "Geboren 1978.", "en-de", "lost_number"),
    ],
)
def test_each_failure_has_its_code(
    source: str, translation: str, languages: str, code: str
) -> None:
    origin, target = languages.split("-")
    assert list(examine(source, translation, (origin, target))) == [code]


@pytest.mark.parametrize(
    ("source", "translation", "languages"),
    [
        ("Tom!", "Tom!", "en-de"),
        ("Dear {first_name} {last_name},", "Liebe {first_name} {last_name},", "en-de"),
        (
            "See https://www.example.com/docs/getting-started/installation for details.",
            "詳細はhttps://www.example.com/docs/getting-started/installation をご覧ください。",
            "en-ja",
        ),
        (
            "Run `git commit --amend --no-edit` now.",
            "`git commit --amend --no-edit`を実行。",
            "en-ja",
        ),
        ("Bitte, bitte, bitte!", "Please, please, please!", "de-en"),
        ("Nooooooo!", "Neeeeeeein!", "en-de"),
        ("Yes, yes, yes, yes!", "Ja, ja, ja, ja!", "en-de"),
        ("Am 3.5.2024 ab 9 Uhr.", "On May 3, 2024 from 9 a.m.", "de-en"),
        ("Microsoft Office", "Microsoft Office", "en-de"),
        ("ha ha ha ha ha ha!", "ハハハハハハハハハ！", "en-ja"),
        ("The dog said wow wow wow wow.", "Der Hund sagte wau wau wau wau.", "en-de"),
        ("NASA and IBM", "NASAとIBM", "en-ja"),
        ("x² + 𝑥 = 0", "x² + 𝑥 = 0 ist die Gleichung", "ja-de"),
        ("一石二鳥。", "Zwei Fliegen mit einer Klappe.", "ja-de"),
        ("Time is money.", "時は金なり。", "en-ja"),
        ("Hello.", "Здраво.", "en-sr"),
        ("Hello.", "Zdravo svima.", "en-sr"),
        ("I am reading the book.", "Olen lukemassa kirjaa.", "en-fi"),
        ("What is that?", "是什么？", "en-zh"),
        ("I live in Seoul.", "저는 서울에 살아요.", "en-ko"),
        ("I am as hungry as a bear.", "Me muero de hambre.", "en-es"),
    ],
)
def test_what_is_right_passes(source: str, translation: str, languages: str) -> None:
    origin, target = languages.split("-")
    assert not examine(source, translation, (origin, target))


def test_translations_by_people_pass() -> None:
    failed: dict[str, int] = {}
    texts = read_texts()
    for text in texts:
        for code in examine(text.source, text.target, (text.source_language, text.target_language)):
            failed[code] = failed.get(code, 0) + 1
    assert all(count <= MOST_FALSE_ALARMS * len(texts) for count in failed.values()), failed


@given(st.text(), st.text(), st.sampled_from(M2M100_CODES), st.sampled_from(M2M100_CODES))
def test_any_text_has_an_answer(source: str, translation: str, origin: str, target: str) -> None:
    findings = examine(source, translation, (origin, target))
    assert all(count > 0 for count in findings.values())


@pytest.mark.parametrize("unit", ["ab", "ha ", "a", "{", "1,", "ああ", "s'il vous plaît, "])
def test_long_hostile_output_takes_no_time(unit: str) -> None:
    text = unit * 2_000
    examine(text, text, ("en", "ja"))
    examine("x" + text, "y" + text[:-1], ("en", "de"))
