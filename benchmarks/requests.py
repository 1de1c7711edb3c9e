"""What the benchmarks send to a service, and what a right answer to it is."""

import asyncio
import json
from collections.abc import Sequence
from itertools import cycle, islice

from benchmarks import load
from benchmarks.servers import NotStarted
from benchmarks.workload import Text, read_texts

SOURCE, TARGET = "en", "ja"
WARM_UP_S = 60.0
WARM_UP_SIZES = (1, 1, 16)  # records


def sentences() -> list[str]:
    """English sentences of the shared sample."""
    texts = (text.source for text in read_texts() if text.source_language == SOURCE)
    return list(dict.fromkeys(texts))


def translation(
    texts: Sequence[str],
    *headers: str,
    source: str = SOURCE,
    target: str = TARGET,
    details: bool = False,
    blank: bool = False,
) -> load.Request:
    """A request for some texts, with every id and a text for each wanted back; ``blank`` ones will
    do where random weights say what they say."""
    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    payload = {"fromLang": source, "records": records, "toLang": target}
    path = "/translation?details=true" if details else "/translation"
    raw = load.message("POST", path, {"payload": payload}, *headers)
    return load.Request(raw, lambda status, body: wrong(status, body, len(texts), blank))


def batches(count: int, records: int) -> list[load.Request]:
    """So many requests of so many sentences each, the same whoever is asked. Sentences repeat only
    when all of them were sent."""
    texts = cycle(sentences())
    return [translation(list(islice(texts, records))) for _ in range(count)]


def of_pair(texts: Sequence[Text], *, details: bool = False, blank: bool = False) -> load.Request:
    """A request for texts of one language pair."""
    first, sources = texts[0], [text.source for text in texts]
    return translation(
        sources,
        source=first.source_language,
        target=first.target_language,
        details=details,
        blank=blank,
    )


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


async def warm_up(where: load.Address) -> None:
    """Requests of some sizes, answered. Raises NotStarted."""
    clock = asyncio.get_running_loop().time
    end_s = clock() + WARM_UP_S
    for records in WARM_UP_SIZES:
        request = translation(sentences()[-records:])
        while (await load.open_loop(where, [request], [0.0], WARM_UP_S))[0].failure:
            if clock() > end_s:
                raise NotStarted("the server answers, but does not translate")
            await asyncio.sleep(0.2)
