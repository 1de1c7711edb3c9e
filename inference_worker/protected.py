"""Spans of a text that must stay whole: markup, placeholders, addresses, inline code."""

import re

# Each is linear in the length of a hostile text: hence the look-behind and the bounds.
_PATTERNS = (
    r"https?://[^\s<>\"'、。，「」『』（）【】]+",
    r"www\.[^\s<>\"'、。，「」『』（）【】]+",
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+",
    r"<!--[^\n\r]{0,500}?-->",
    r"</?[A-Za-z][^<>\n\r]*>",
    r"`[^`\n\r]+`",
    r"\{\{[^{}\n\r]*\}\}",
    r"\$?\{[^{}\n\r]*\}",
    r"%\([^()\s]+\)[-#0 +]?\d*(?:\.\d+)?[A-Za-z]",
    r"%(?:\d+\$)?[-#0+]?\d*(?:\.\d+)?[A-Za-z@]",
    r"\$\d+|\$[A-Za-z_]\w*",
    r"&(?:[A-Za-z]\w*|#\d+|#x[0-9A-Fa-f]+);",
)
_SPAN = re.compile("|".join(_PATTERNS))
# What ends the sentence around an address rather than the address.
_TRAILING = ".,;:!?…)]}'\"»’”"


def spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every protected span, in order, not overlapping."""
    found = []
    for match in _SPAN.finditer(text):
        start, end = match.span()
        if match.group().startswith(("http", "www.")):
            while end > start and text[end - 1] in _TRAILING and not _balanced(text, start, end):
                end -= 1
        found.append((start, end))
    return found


def _balanced(text: str, start: int, end: int) -> bool:
    """Whether an address ends with a bracket that it opened itself, as wiki addresses do."""
    return text[end - 1] == ")" and text.count("(", start, end) >= text.count(")", start, end)


def without(text: str) -> str:
    """The text with each protected span replaced by a space."""
    return _SPAN.sub(" ", text)
