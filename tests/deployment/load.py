"""Callers of the service under test, who notice whatever they were promised and not given."""

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import httpx

RECORDS = 4
CALLERS = 6
PAUSE_S = 0.3  # between an answer and the next request: two cores must do for everything
PATIENCE_S = 240.0
RETRY_S = 0.5
TRY_AGAIN = {429, 502, 503, 504}
SENTENCES = (
    "The train leaves at eight.",
    "Where is the station?",
    "I would like a cup of tea, please.",
    "My sister lives near the sea.",
)


@dataclass
class Tally:
    """What became of the requests."""

    sent: int = 0
    answered: int = 0
    records: int = 0
    retries: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - self.answered


class Callers:
    """Sends requests until it is told to stop, then waits for every answer. A call whose connection
    breaks is repeated with the same Idempotency-Key, as a careful client does."""

    def __init__(self, url: str, name: str) -> None:
        self.tally = Tally()
        self._url = url
        self._name = name
        self._stop = asyncio.Event()
        self._numbers = itertools.count()

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> Tally:
        limits = httpx.Limits(max_connections=CALLERS * 2)
        async with httpx.AsyncClient(
            base_url=self._url, timeout=PATIENCE_S, limits=limits
        ) as client:
            await asyncio.gather(*(self._caller(client) for _ in range(CALLERS)))
        return self.tally

    async def _caller(self, client: httpx.AsyncClient) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            self.tally.sent += 1
            began = time.monotonic()
            problem = await self._call(client, number)
            self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - began)
            if problem:
                self.tally.wrong.append(f"request {number}: {problem}")
            else:
                self.tally.answered += 1
                self.tally.records += RECORDS
            await asyncio.sleep(PAUSE_S)

    async def _call(self, client: httpx.AsyncClient, number: int) -> str:
        """What is wrong with the answer, "" if nothing is."""
        ids = [f"{number}-{index}" for index in range(RECORDS)]
        records = [
            {"id": id, "text": f"{SENTENCES[index % len(SENTENCES)]} {number}"}
            for index, id in enumerate(ids)
        ]
        body = {"payload": {"fromLang": "en", "toLang": "ja", "records": records}}
        headers = {"Idempotency-Key": f"{self._name}-{number}"}
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = await client.post("/translation", json=body, headers=headers)
            except httpx.TransportError as error:
                shown = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == 200:
                    return self._check(answer, ids)
                shown = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in TRY_AGAIN:
                    return shown
            if time.monotonic() > end:
                return shown
            self.tally.retries += 1
            await asyncio.sleep(RETRY_S)

    @staticmethod
    def _check(answer: httpx.Response, ids: list[str]) -> str:
        result = answer.json()["result"]
        if [record["id"] for record in result] != ids:
            return "the ids are not those that were sent"
        failed = [record for record in result if not record.get("text")]
        return f"records without text: {failed}" if failed else ""
