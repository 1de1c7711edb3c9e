"""What a worker may remark on a translation: codes for programs, which do not change between
releases, and a sentence for people. They travel in ``Details.warnings`` as one string each."""

from typing import Literal

Code = Literal[
    "empty",
    "truncated",
    "repetition",
    "length",
    "copied",
    "wrong_script",
    "wrong_language",
    "lost_placeholder",
    "lost_address",
    "lost_emoji",
    "lost_number",
    "unknown",
    "mended",
    "same_language",
]

MEANING: dict[Code, str] = {
    "empty": "nothing came out",
    "truncated": "cut off at the limit of tokens, perhaps incomplete",
    "repetition": "repeats itself where the source does not",
    "length": "far too long or too short for its source",
    "copied": "left as it was",
    "wrong_script": "not in the script of the target language",
    "wrong_language": "reads like another language than the target",
    "lost_placeholder": "placeholders, markup or code are not as often there as in the source",
    "lost_address": "a URL or e-mail address of the source is missing",
    "lost_emoji": "an emoji of the source is missing",
    "lost_number": "a number of the source is missing or changed",
    "unknown": "pieces of the source are unknown to the model and may be missing",
    "mended": "the first translation failed a check, a better one took its place",
    "same_language": "source and target language are the same, nothing was translated",
}


def code(warning: str) -> str:
    """What a remark begins with."""
    return warning.partition(":")[0]


def warning(code: Code, sentences: int, of: int) -> str:
    """A remark on so many sentences of a record."""
    noun = "sentence" if of == 1 else "sentences"
    return f"{code}: {MEANING[code]} ({sentences} of {of} {noun})"
