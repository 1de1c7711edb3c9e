"""Tests of ``inference_worker.quality.spans``."""

from collections.abc import Callable

import pytest

from inference_worker.quality.spans import addresses, emoji, missing, placeholders


def found(finder: Callable[[str], list[tuple[int, int]]], text: str) -> list[str]:
    return [text[slice(*span)] for span in finder(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello {name} and %s, {{x}} %(n)d", ["{name}", "%s", "{{x}}", "%(n)d"]),
        ("Replace $1 with $2.", ["$1", "$2"]),
        ("It costs $1 per page, not $5.", []),
        ("Between $1,000 and $2,000.", []),
        ("Press <b>`OK`</b> &amp; go.", ["<b>", "`OK`", "</b>", "&amp;"]),
        ("I am 100%sure.", []),
        ("Write to a@example.org or http://a.example.", []),
    ],
)
def test_placeholders(text: str, expected: list[str]) -> None:
    assert found(placeholders, text) == expected


def test_addresses() -> None:
    text = "See https://example.com/a_(b), www.example.org or write to a.b@example.co.uk."
    assert found(addresses, text) == [
        "https://example.com/a_(b)",
        "www.example.org",
        "a.b@example.co.uk",
    ]


def test_an_emoji_is_whole() -> None:
    scotland = "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"
    text = f"A 👨‍👩‍👧 with 👍🏽, ❤️ and 🇯🇵{scotland}! ♪ 日本 ① 1️⃣ 2 ⏰"
    assert found(emoji, text) == ["👨‍👩‍👧", "👍🏽", "❤️", "🇯🇵", scotland, "1️⃣", "⏰"]


def test_what_is_missing_is_counted() -> None:
    source = "{a} {a} {b}"
    spans = placeholders(source)
    assert missing(source, spans, "{b} {a}") == 1
    assert missing(source, spans, "") == 3
    assert missing(source, spans, "{a}{a}{b}{b}") == 0
