"""What a model reads of a sentence, and what is read of its answer: text without the characters
that nobody sees.

Controls, overrides of the writing direction and invisible signs say nothing to a model, hide words
from whoever checks a text, and turn known words into unknown pieces. They are left out of what the
model reads, and are thus not in its translation. The caller's text itself is never changed: what
lies between sentences, and what is not translated, comes back byte for byte.
"""

import re

# Joiners (U+200C, U+200D) and variation selectors stay: they spell Persian, Hindi and emoji. So do
# the few tags that make a black flag that of a region, and end with a tag of their own.
_UNSEEN = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f)|["
    "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f"  # controls; those that end lines are gone by then
    "\u00ad\u034f\u180e\u200b\u2060-\u2064\ufeff"  # soft hyphen, spaces and joiners of no width
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, embeddings, overrides and isolates
    "\u206a-\u206f\ufff9-\ufffb"  # deprecated formats, annotations
    "\U000e0000-\U000e007f"  # tags
    "]+"
)
# A model that spells in bytes can say what no sentence holds: ends of lines, and other controls.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def normalised(sentence: str) -> str:
    """The sentence as the model reads it; the same string where there is nothing to leave out."""
    return sentence if sentence.isprintable() else _UNSEEN.sub(r"\1", sentence)


def one_line(answer: str) -> str:
    """What a model said, as a part of the line that its source is in: the lines of a text are its
    author's. The same string where there is nothing to leave out."""
    return answer if answer.isprintable() else _CONTROLS.sub(" ", answer).strip()
