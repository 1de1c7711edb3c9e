"""What one tenant's flood does to another, and one lane to the other.

    python -m benchmarks.fairness [--flood 100000] [--probes 40] [--engines paced real]

Real Valkey, real worker processes; the tenants submit and wait through the broker as the API tier
does. Tenant B sends one sentence now and then, first alone, then beside 100,000 records of tenant
A: in the same lane, and interactive beside bulk. Then both lanes are full at once, and what comes
out of each is counted. The engine either waits a stated time per batch (so that only waiting is
measured) or is the bundled model.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import load, report, requests, stacks
from benchmarks.report import tell
from benchmarks.servers import NotStarted
from benchmarks.stacks import Engine, Stack
from broker.producer import Producer
from broker.waiter import Waiter
from broker.wire import LANES, Lane, Submission

MODEL = "small"
FLOOD, PROBES, EVERY_S = 100_000, 40, 0.7
BATCH_S, SLOTS, REAL_SLOTS, WORKERS = 0.5, 16, 16, 1
PER_REQUEST = 1_000
SETTLE_S, SHARES_S = 1.0, 10.0
PATIENCE_S = 120.0
CASES: tuple[tuple[Lane, Lane], ...] = (
    ("bulk", "bulk"),
    ("interactive", "interactive"),
    ("interactive", "bulk"),
    ("bulk", "interactive"),
)


@dataclass(frozen=True)
class Case:
    """Tenant B's latencies in one lane, alone and beside a flood in another or the same."""

    engine: str
    lane: Lane
    flood_lane: Lane
    alone_s: list[float]  # sorted
    beside_s: list[float]  # sorted
    batch_s: float  # how long as many of the flood's records took as the engines hold

    def row(self) -> list[str]:
        alone, beside = (load.quantile(one, 0.95) for one in (self.alone_s, self.beside_s))
        return [
            self.engine,
            self.lane,
            self.flood_lane,
            report.shown(load.quantile(self.alone_s, 0.5)),
            report.shown(alone),
            report.shown(load.quantile(self.beside_s, 0.5)),
            report.shown(beside),
            report.shown(self.batch_s),
            f"{(beside - alone) / self.batch_s:.1f}",
        ]


HEADS = (
    *("engine", "B's lane", "A's lane", "p50 alone", "p95 alone", "p50 beside", "p95 beside"),
    *("a batch", "batches more (p95)"),
)
SHARE_HEADS = ("engine", "lane", "characters/s", "share", "at least")
AT_LEAST = {"interactive": 3 / 4, "bulk": 1 / 5}  # as broker/functions.lua counts on it


class Crowd:
    """Tenants of one service, in this process."""

    def __init__(self, service: Stack) -> None:
        self.producer = Producer(service.settings, "fairness")
        self.waiter = Waiter(self.producer)
        self._sentences = requests.sentences()
        self._sent = 0

    async def __aenter__(self) -> "Crowd":
        await self.producer.prepare()
        await self.waiter.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.waiter.stop()
        await self.producer.close()

    def submission(self, tenant: str, lane: Lane, records: int) -> Submission:
        """Sentences of which none is sent twice."""
        texts = []
        for _ in range(records):
            self._sent += 1
            texts.append(f"{self._sentences[self._sent % len(self._sentences)]} {self._sent}")
        return Submission(
            id=self.producer.new_request_id(),
            tenant=tenant,
            model=MODEL,
            lane=lane,
            source=requests.SOURCE,
            target=requests.TARGET,
            ids=list(range(records)),
            texts=texts,
            deadline_ms=86_400_000,
            kept=True,
        )

    async def flood(self, lane: Lane, records: int) -> list[Submission]:
        flood = []
        for start in range(0, records, PER_REQUEST):
            part = self.submission("a", lane, min(PER_REQUEST, records - start))
            await self.producer.submit(part)
            flood.append(part)
        return flood

    async def calm(self, flood: Sequence[Submission]) -> None:
        """Drops a flood, and waits until nothing is outstanding."""
        for part in flood:
            await self.producer.cancel("a", part.id)
        end_s = time.monotonic() + PATIENCE_S
        while (await self.producer.load(MODEL)).outstanding_cost:
            if time.monotonic() > end_s:
                raise NotStarted("cancelled work is still outstanding")
            await asyncio.sleep(0.1)

    async def probe(self, lane: Lane, due_s: float) -> float:
        """Seconds from when it is due until one sentence of tenant B is back."""
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        request = self.submission("b", lane, 1)
        with self.waiter.watching("b", request.id, request) as watch:
            await self.producer.submit(request)
            if not await watch.finished(PATIENCE_S):
                raise NotStarted("tenant B's sentence did not come back")
        took_s = time.perf_counter() - due_s
        view = await self.producer.view("b", request.id)
        if not view or not view[1][0].text:
            raise NotStarted("tenant B's sentence came back without a translation")
        return took_s

    async def probes(self, lane: Lane, count: int, every_s: float) -> list[float]:
        """At times that keep no step with the batches; whatever has become of the earlier ones."""
        rng = random.Random(count)
        due_s = time.perf_counter()
        sent = []
        for _ in range(count):
            due_s += every_s * rng.uniform(0.5, 1.5)
            sent.append(asyncio.create_task(self.probe(lane, due_s)))
        return sorted(await asyncio.gather(*sent))

    async def drained(self, seconds: float, *flooded: Lane) -> dict[str, float]:
        """Characters a second by lane, over so long, or longer if a flooded lane has not given any
        by then."""
        before, began_s = await self.producer.load(MODEL), time.perf_counter()
        while True:
            await asyncio.sleep(seconds)
            left = (await self.producer.load(MODEL)).cost_by_lane
            spent_s = time.perf_counter() - began_s
            done = {lane: before.cost_by_lane[lane] - left[lane] for lane in LANES}
            if all(done[lane] or not left[lane] for lane in flooded):
                return {lane: characters / spent_s for lane, characters in done.items()}


async def measured(
    service: Stack, engine: Engine, options: argparse.Namespace
) -> tuple[list[Case], dict[str, float]]:
    """Every case, and what each lane got while both were full."""
    cases = []
    async with Crowd(service) as crowd:
        for lane in LANES:
            await crowd.probe(lane, time.perf_counter())
        for lane, flood_lane in CASES:
            alone_s = await crowd.probes(lane, options.probes, options.every_s)
            flood = await crowd.flood(flood_lane, options.flood)
            await asyncio.sleep(SETTLE_S)
            beside_s, rates = await asyncio.gather(
                crowd.probes(lane, options.probes, options.every_s),
                crowd.drained(options.probes * options.every_s, flood_lane),
            )
            left = (await crowd.producer.load(MODEL)).cost_by_lane[flood_lane]
            if not left:
                raise NotStarted("the flood was over before the measurement: --flood is too small")
            mean = sum(len(text) for part in flood for text in part.texts) / options.flood
            slots = sum(worker.slots for worker in await crowd.producer.workers(MODEL))
            batch_s = slots * mean / rates[flood_lane]
            await crowd.calm(flood)
            cases.append(Case(engine.name, lane, flood_lane, alone_s, beside_s, batch_s))
            tell("  ".join(cases[-1].row()))
        floods = [part for lane in LANES for part in await crowd.flood(lane, options.flood)]
        await asyncio.sleep(SETTLE_S)
        shares = await crowd.drained(options.shares_s, *LANES)
        await crowd.calm(floods)
    return cases, shares


def told(options: argparse.Namespace, machine: str) -> str:
    """Measures, and reports in Markdown."""
    cases: list[Case] = []
    shares: list[list[str]] = []
    for kind in options.engines:
        paced = kind == "paced"
        engine = stacks.paced(options.batch_s, SLOTS) if paced else stacks.bundled(REAL_SLOTS)
        with stacks.stack(engine.worker, workers=options.workers, api_processes=0) as service:
            found, rates = asyncio.run(measured(service, engine, options))
        cases += found
        total = sum(rates.values())
        shares += [
            [
                engine.name,
                lane,
                f"{rates[lane]:.0f}",
                f"{100 * rates[lane] / total:.0f}%",
                f"{100 * AT_LEAST[lane]:.0f}%",
            ]
            for lane in LANES
        ]
    return (
        f"`{report.command('fairness')}`\n\n"
        f"**Tenants.** B sends {options.probes} sentences, one every {options.every_s:g} s on"
        f" average, alone and beside {options.flood:,} records of A. {options.workers} worker(s)."
        f" Seconds.\n\n{report.table(HEADS, [case.row() for case in cases])}\n\n"
        f"**Lanes.** {options.flood:,} records in each at once, over {options.shares_s:g} s.\n\n"
        f"{report.table(SHARE_HEADS, shares)}\n\n{machine}.\n"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("fairness", __doc__)
    add = parser.add_argument
    add("--flood", type=int, default=FLOOD, help="records of tenant A")
    add("--probes", type=int, default=PROBES, help="sentences of tenant B in each measurement")
    add("--every-s", type=float, default=EVERY_S, help="seconds between them, on average")
    add("--batch-s", type=float, default=BATCH_S, help="how long a batch of the paced engine takes")
    add("--workers", type=int, default=WORKERS, help="worker processes")
    add("--shares-s", type=float, default=SHARES_S, help="how long full lanes are counted")
    add("--engines", nargs="+", choices=("paced", "real"), default=["paced", "real"])
    options = parser.parse_args(arguments)
    if not 1 <= options.flood <= 1_000_000 or not 1 <= options.probes <= 1_000:
        parser.error("--flood must be between 1 and 1000000, --probes between 1 and 1000")
    if min(options.every_s, options.batch_s, options.shares_s) <= 0 or options.workers < 1:
        parser.error("times must be above 0, --workers at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    return report.made("fairness", lambda machine: told(options, machine), options.out)


if __name__ == "__main__":
    sys.exit(main())
