"""What the benchmarks send to a service, and what a right answer to it is."""

import json
from collections.abc import Sequence

from benchmarks import load
from benchmarks.servers import NotStarted
from benchmarks.workload import Text


def translation(texts: Sequence[Text]) -> load.Request:
    """A request for some texts of one language pair, with every id and a text wanted back."""
    records = [{"id": number, "text": text.source} for number, text in enumerate(texts)]
    payload = {
        "fromLang": texts[0].source_language,
        "records": records,
        "toLang": texts[0].target_language,
    }
    raw = load.message("POST", "/translation", {"payload": payload})
    return load.Request(raw, lambda status, body: rejected(status, body, len(texts)))


def rejected(status: int, body: bytes, count: int) -> str:
    """What is wrong with an answer; "" if nothing is. A text may be empty here: random weights say
    what they say."""
    if status != 200:
        return f"status {status}"
    result = json.loads(body)["result"]
    if [record["id"] for record in result] != list(range(count)):
        return "wrong ids"
    return "" if all("text" in record for record in result) else "a record without text"


def check(answers: Sequence[load.Answer]) -> None:
    """Raises NotStarted when an answer is wrong."""
    wrong = [answer.failure for answer in answers if answer.failure]
    if wrong:
        raise NotStarted(f"{len(wrong)} of {len(answers)} answers were wrong: {wrong[0]}")
