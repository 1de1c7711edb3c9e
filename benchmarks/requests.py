"""What the benchmarks send to a service, and what a right answer to it is."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks import load
from benchmarks.servers import NotStarted
from benchmarks.workload import Text

SENTENCES = Path(__file__).with_name("sentences.tsv")
SOURCE, TARGET = "en", "ja"


def sentences() -> list[str]:
    """English sentences of the shared sample."""
    rows = SENTENCES.read_text(encoding="utf-8").splitlines()
    fields = (row.split("\t") for row in rows if not row.startswith("#"))
    return list(dict.fromkeys(row[2] for row in fields if row[0] == SOURCE))


def translation(
    texts: Sequence[str],
    *headers: str,
    source: str = SOURCE,
    target: str = TARGET,
    blank: bool = False,
) -> load.Request:
    """A request for some texts, with every id and a text for each wanted back; ``blank`` ones will
    do where random weights say what they say."""
    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    payload = {"fromLang": source, "records": records, "toLang": target}
    raw = load.message("POST", "/translation", {"payload": payload}, *headers)
    return load.Request(raw, lambda status, body: wrong(status, body, len(texts), blank))


def of_pair(texts: Sequence[Text]) -> load.Request:
    """A request for texts of one language pair; what comes back may be blank."""
    first, sources = texts[0], [text.source for text in texts]
    source, target = first.source_language, first.target_language
    return translation(sources, source=source, target=target, blank=True)


def wrong(status: int, body: bytes, count: int, blank: bool = False) -> str:
    """What is wrong with an answer; "" if nothing is."""
    if status != 200:
        return f"status {status}"
    result = json.loads(body)["result"]
    if [record["id"] for record in result] != [str(number) for number in range(count)]:
        return "wrong ids"
    right = all("text" in record if blank else record.get("text") for record in result)
    return "" if right else "a record without text"


def check(answers: Sequence[load.Answer]) -> None:
    """Raises NotStarted when an answer is wrong."""
    failures = [answer.failure for answer in answers if answer.failure]
    if failures:
        raise NotStarted(f"{len(failures)} of {len(answers)} answers were wrong: {failures[0]}")
