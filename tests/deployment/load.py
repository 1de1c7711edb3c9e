"""Callers of the service under test, who notice whatever they were promised and not given."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

RECORDS = 4
CALLERS = 6
DOCUMENT_LINES = 12
PAUSE_S = 0.3  # between an answer and the next request: two cores must do for everything
PATIENCE_S = 240.0
RETRY_S = 0.5
TRY_AGAIN = {429, 502, 503, 504}
# With a number each, since what was translated before is remembered, not translated again.
SENTENCES = (
    "Train {} leaves at eight.",
    "Where is house number {}?",
    "I would like {} cups of tea, please.",
    "My sister has {} friends who live near the sea.",
)


@dataclass
class Tally:
    """What became of the requests and the documents."""

    sent: int = 0
    answered: int = 0
    records: int = 0
    documents_sent: int = 0
    documents_answered: int = 0
    lines: int = 0
    repeated: Counter[str] = field(default_factory=Counter)  # calls, by what came in their way
    slowest_s: float = 0.0
    slowest_document_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - self.answered + self.documents_sent - self.documents_answered


class Wrong(Exception):
    """An answer that is not what was promised; the message says how."""


class Callers:
    """Sends requests and documents until it is told to stop, then waits for every answer. A call
    whose connection breaks is repeated, a request with the same Idempotency-Key, as a careful
    client does."""

    def __init__(self, url: str, name: str, key: str = "") -> None:
        self.tally = Tally()
        self._url = url
        self._name = name
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._stop = asyncio.Event()
        self._numbers = itertools.count(1)

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> Tally:
        limits = httpx.Limits(max_connections=CALLERS * 2)
        async with httpx.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=PATIENCE_S, limits=limits
        ) as client:
            await asyncio.gather(
                *(self._request_caller(client) for _ in range(CALLERS)),
                self._document_caller(client),
            )
        return self.tally

    async def _request_caller(self, client: httpx.AsyncClient) -> None:
        tally = self.tally
        while not self._stop.is_set():
            number = next(self._numbers)
            tally.sent += 1
            began = time.monotonic()
            try:
                await self._request(client, number)
                tally.answered += 1
                tally.records += RECORDS
            except Wrong as wrong:
                tally.wrong.append(f"request {number}: {wrong}")
            tally.slowest_s = max(tally.slowest_s, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)

    async def _document_caller(self, client: httpx.AsyncClient) -> None:
        tally = self.tally
        while not self._stop.is_set():
            number = next(self._numbers)
            tally.documents_sent += 1
            began = time.monotonic()
            try:
                await self._document(client, number)
                tally.documents_answered += 1
                tally.lines += DOCUMENT_LINES
            except Wrong as wrong:
                tally.wrong.append(f"document {number}: {wrong}")
            tally.slowest_document_s = max(tally.slowest_document_s, time.monotonic() - began)
            await asyncio.sleep(PAUSE_S)

    async def _request(self, client: httpx.AsyncClient, number: int) -> None:
        """Raises Wrong unless every record comes back with a text."""
        ids = [f"{number}-{index}" for index in range(RECORDS)]
        records = [
            {"id": id, "text": sentence} for id, sentence in zip(ids, _texts(number), strict=False)
        ]
        body = {"payload": {"fromLang": "en", "toLang": "ja", "records": records}}
        headers = {"Idempotency-Key": f"{self._name}-{number}"}
        answer = await self._call(client, "POST", "/translation", 200, json=body, headers=headers)
        result = answer.json()["result"]
        if [record["id"] for record in result] != ids:
            raise Wrong("the ids are not those that were sent")
        if failed := [record for record in result if not record.get("text")]:
            raise Wrong(f"records without text: {failed}")

    async def _document(self, client: httpx.AsyncClient, number: int) -> None:
        """Raises Wrong unless a text file comes back with a translation of each of its lines."""
        lines = list(itertools.islice(_texts(number), DOCUMENT_LINES))
        files = {"file": ("notes.txt", "\n".join(lines).encode(), "text/plain")}
        data = {"source": "en", "target": "ja"}
        taken = await self._call(client, "POST", "/documents", 202, files=files, data=data)
        place = taken.headers["location"]
        end = time.monotonic() + PATIENCE_S
        while (state := (await self._call(client, "GET", place, 200)).json())["state"] != "done":
            if time.monotonic() > end or state["state"] in ("failed", "cancelled"):
                raise Wrong(f"ended or stays {state}")
            await asyncio.sleep(RETRY_S)
        result = (await self._call(client, "GET", f"{place}/result", 200)).text.split("\n")
        if state["failed"] or len(result) != len(lines):
            raise Wrong(f"{state['failed']} of {len(lines)} lines failed, {len(result)} came back")
        if same := [line for line in result if not line or line in lines]:
            raise Wrong(f"lines without translation: {same}")

    async def _call(
        self, client: httpx.AsyncClient, method: str, path: str, expected: int, **options: Any
    ) -> httpx.Response:
        """The answer of the expected status; asks again where that may help. Raises Wrong."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = await client.request(method, path, **options)
            except httpx.TransportError as error:
                obstacle, shown = type(error).__name__, f"{method} {path}: {error!r}"
            else:
                if answer.status_code == expected:
                    return answer
                obstacle = str(answer.status_code)
                shown = f"{method} {path}: {answer.status_code} {answer.text[:200]}"
                if answer.status_code not in TRY_AGAIN:
                    raise Wrong(shown)
            if time.monotonic() > end:
                raise Wrong(shown)
            self.tally.repeated[obstacle] += 1
            await asyncio.sleep(RETRY_S)


def _texts(number: int) -> Iterator[str]:
    """Sentences without end, no two alike, of this request and of no other."""
    for index in itertools.count():
        yield SENTENCES[index % len(SENTENCES)].format(number * 100 + index)
