"""Load: callers of every kind, each with one request at a time, none of whom gives up on what was
accepted. A call that went wrong is repeated as a careful client does it: with its Idempotency-Key,
or, having none, as a new request."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import httpx
import msgspec

from tests.chaos.cluster import Cluster
from tests.chaos.ledger import Entry, Ledger

BULK, SMALL = (200, 1_000), (1, 16)  # records of a request
CALL_S = 60.0  # longest silence before a caller breaks a call off
POLL_S = 10
RETRY_S = 0.2
SENTENCES = ("Where is the station?", "I like tea.", "The train is late.", "Good morning.")
AGAIN_S = 10.0  # after which an answer is read once more
PATIENCE_S = 300.0  # for one request, faults and all
REFUSED = {429, 503, 504}  # not now
UNANSWERED = (httpx.TransportError, asyncio.TimeoutError)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Callers:
    """``bulk`` callers with large requests and ``small`` ones with small requests, until told to
    stop; then every accepted request is read to its end, and once more."""

    def __init__(self, cluster: Cluster, ledger: Ledger, seed: int, bulk: int, small: int) -> None:
        self.ledger = ledger
        self.poison: deque[str] = deque()  # kinds that the next requests are to carry
        self._urls = cluster.urls
        self._bundled = [member.url for member in cluster.bundled if member.url]
        self._seed = seed
        self._sizes = [BULK] * bulk + [SMALL] * small
        self._stopping = asyncio.Event()
        self._again: deque[tuple[float, Entry]] = deque()
        self._client = httpx.AsyncClient(
            timeout=CALL_S,
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=100),
            headers={"Content-Type": "application/json"},
        )

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Ends when everything that was accepted has been answered, or has taken too long."""
        reader = asyncio.ensure_future(self._read_again())
        callers = [self._caller(*each) for each in enumerate(self._sizes)]
        callers += [self._real_caller(url) for url in self._bundled]
        await asyncio.gather(*callers)
        self._again.append((0.0, Entry(0, 0)))
        await reader
        await self._client.aclose()

    async def _caller(self, place: int, sizes: tuple[int, int]) -> None:
        chance = random.Random(f"{self._seed} {place}")
        ways = (self._synchronous, self._synchronous, self._job, self._keyed, self._keyed_job,
                self._impatient, self._cancelling, self._leaving)  # fmt: skip
        weights = (4, 4, 6, 4, 6, 2, 1, 1)
        while not self._stopping.is_set():
            (way,) = chance.choices(ways, weights)
            size = chance.randint(*sizes)
            await way(chance, size)
            if self.poison:
                entry = self.ledger.open(max(size, 8), self.poison.popleft(), key=True)
                await self._until_accepted(entry, chance, "/jobs")
                await self._follow(entry, chance)

    async def _real_caller(self, url: str) -> None:
        """Real sentences for the bundled model, one request after the other, each with its key
        until it is answered. What it says depends on its batch in the last decimals, so that only
        ids and the presence of a text can be checked."""
        while not self._stopping.is_set():
            number = self.ledger.counts["requests to the bundled model"] + 1
            self.ledger.counts["requests to the bundled model"] = number
            records = [{"id": n, "text": f"{text} {number}"} for n, text in enumerate(SENTENCES)]
            payload = {"fromLang": "en", "toLang": "de", "records": records}
            content, key = _encode({"payload": payload}), f"bundled-{number}"
            end = time.monotonic() + PATIENCE_S
            shown = await self._ask(url, content, key)
            while shown and time.monotonic() < end:
                await asyncio.sleep(RETRY_S)
                shown = await self._ask(url, content, key)
            if shown:
                self.ledger.blame(None, f"request {number} to the bundled model: {shown}")

    async def _ask(self, url: str, content: bytes, key: str) -> str:
        """What is wrong with the answer, "" if nothing is."""
        try:
            answer = await self._client.post(
                f"{url}/translation", content=content, headers={"Idempotency-Key": key}
            )
        except UNANSWERED as error:
            self.ledger.counts["calls that broke"] += 1
            return type(error).__name__
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text[:200]}"
        result = _decode(answer.content)["result"]
        if [record["id"] for record in result] != list(range(len(SENTENCES))):
            return "the ids are not those that were sent"
        missing = [record for record in result if not record.get("text")]
        self.ledger.counts["records of the bundled model"] += len(SENTENCES) - len(missing)
        return f"records without a text: {missing}" if missing else ""

    # ── The ways to call ─────────────────────────────────────────────────────────────────────

    async def _synchronous(self, chance: random.Random, size: int) -> None:
        """Without a key an unanswered call promises nothing: it is forgotten."""
        entry = self.ledger.open(size)
        try:
            answer = await self._post(entry, chance, "/translation")
        except UNANSWERED:
            self.ledger.counts["calls that broke"] += 1
            return
        await self._take(entry, answer, chance)

    async def _keyed(self, chance: random.Random, size: int) -> None:
        entry = self.ledger.open(size, key=True)
        await self._until_accepted(entry, chance, "/translation")
        if chance.random() < 0.2:  # a duplicate, on whichever process
            await self._until_accepted(entry, chance, "/translation")

    async def _job(self, chance: random.Random, size: int) -> None:
        entry = self.ledger.open(size)
        try:
            answer = await self._post(entry, chance, "/jobs")
        except UNANSWERED:
            self.ledger.counts["calls that broke"] += 1
            return
        await self._take(entry, answer, chance)

    async def _keyed_job(self, chance: random.Random, size: int) -> None:
        entry = self.ledger.open(size, key=True)
        await self._until_accepted(entry, chance, "/jobs")
        if chance.random() < 0.2:
            await self._until_accepted(entry, chance, "/jobs")
        await self._follow(entry, chance)

    async def _impatient(self, chance: random.Random, size: int) -> None:
        entry = self.ledger.open(size, key=True)
        await self._until_accepted(entry, chance, "/translation", {"Prefer": "wait=0"})

    async def _cancelling(self, chance: random.Random, size: int) -> None:
        entry = self.ledger.open(size, key=True)
        await self._until_accepted(entry, chance, "/jobs")
        answer = await self._patiently("DELETE", entry, chance)
        if answer is not None:
            entry.cancelled = answer["state"] == "cancelled"
            self.ledger.counts["requests cancelled"] += entry.cancelled
            await self._follow(entry, chance)

    async def _leaving(self, chance: random.Random, size: int) -> None:
        """Hangs up; the work is cancelled or goes on, and either way leaves nothing behind."""
        entry = self.ledger.open(size)
        call = asyncio.ensure_future(self._post(entry, chance, "/translation"))
        await asyncio.wait([call], timeout=chance.random() / 4)
        if not call.done():
            self.ledger.counts["callers who hung up"] += 1
            call.cancel()
        try:
            answer = await call
        except (*UNANSWERED, asyncio.CancelledError):
            return
        await self._take(entry, answer, chance)

    # ── Calls ────────────────────────────────────────────────────────────────────────────────

    async def _post(
        self,
        entry: Entry,
        chance: random.Random,
        path: str,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = dict(headers or {})
        if entry.key:
            sent["Idempotency-Key"] = entry.key
        url = chance.choice(self._urls()) + path
        return await self._client.post(url, content=_encode(entry.body), headers=sent)

    async def _until_accepted(
        self,
        entry: Entry,
        chance: random.Random,
        path: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Repeats the call with its key until it is answered."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                answer = await self._post(entry, chance, path, headers)
            except UNANSWERED:
                self.ledger.counts["calls that broke"] += 1
            else:
                if await self._take(entry, answer, chance):
                    return
            await asyncio.sleep(RETRY_S)
        self.ledger.blame(entry, f"not taken within {PATIENCE_S:.0f} s")

    async def _take(self, entry: Entry, answer: httpx.Response, chance: random.Random) -> bool:
        """Books an answer to a submit; False for one that says to try again."""
        location = answer.headers.get("location", "")
        if answer.status_code == 200 or (answer.status_code == 502 and entry.poison):
            self.ledger.accept(entry)
            self.ledger.check(entry, _decode(answer.content)["result"])
            self._read_later(entry)
        elif answer.status_code == 202 or location:
            self.ledger.accept(entry, location)
            if answer.request.url.path == "/translation" or not entry.key:
                await self._follow(entry, chance)
        elif answer.status_code in REFUSED:
            code = _decode(answer.content).get("code", "")
            self.ledger.counts[f"refused: {answer.status_code} {code}"] += 1
            return False
        else:
            self.ledger.blame(entry, f"answered {answer.status_code}: {answer.text[:200]}")
        return True

    async def _follow(self, entry: Entry, chance: random.Random) -> None:
        """Reads an accepted request, on whichever process, until it has ended."""
        end = time.monotonic() + PATIENCE_S
        while entry.location and time.monotonic() < end:
            job = await self._patiently("GET", entry, chance, f"?wait={POLL_S}")
            if job is None:
                return
            if job["state"] in ("done", "failed"):
                self.ledger.check(entry, job["result"])
                self._read_later(entry)
                return
            if job["state"] == "cancelled":
                if not entry.cancelled:
                    self.ledger.blame(entry, "cancelled by nobody")
                return

    async def _patiently(
        self, method: str, entry: Entry, chance: random.Random, query: str = ""
    ) -> dict[str, Any] | None:
        """The body of a 200 of the request's Location; None, with blame, for one that never
        comes."""
        end, shown = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < end:
            url = chance.choice(self._urls()) + entry.location + query
            try:
                answer = await self._client.request(method, url)
            except UNANSWERED as error:
                shown = type(error).__name__
                self.ledger.counts["calls that broke"] += 1
            else:
                if answer.status_code == 200:
                    body: dict[str, Any] = _decode(answer.content)
                    return body
                shown = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in REFUSED:
                    break
            await asyncio.sleep(RETRY_S)
        self.ledger.blame(entry, f"{method} of its Location: {shown}")
        return None

    # ── Reading again ────────────────────────────────────────────────────────────────────────

    def _read_later(self, entry: Entry) -> None:
        if entry.location or entry.key:
            self._again.append((time.monotonic() + AGAIN_S, entry))

    async def _read_again(self) -> None:
        """Every answer is asked for twice: by its Location, or by repeating the call."""
        chance = random.Random(f"{self._seed} again")
        while True:
            if not self._again or (
                self._again[0][0] > time.monotonic() and not self._stopping.is_set()
            ):
                await asyncio.sleep(RETRY_S)
                continue
            _, entry = self._again.popleft()
            if entry.number == 0:
                return
            await self._once_more(entry, chance)

    async def _once_more(self, entry: Entry, chance: random.Random) -> None:
        if entry.location:
            job = await self._patiently("GET", entry, chance)
            if job is not None:
                self.ledger.check(entry, job["result"])
            return
        try:
            answer = await self._post(entry, chance, "/translation")
        except UNANSWERED:
            return
        if answer.status_code == 200:
            self.ledger.check(entry, _decode(answer.content)["result"])
