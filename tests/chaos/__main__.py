"""``python -m tests.chaos``: load through real processes while they are hurt, and the books.

Exit status: 0, every promise was kept; 1, one was broken, and which.
"""

import argparse
import asyncio
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence

from tests.chaos import audit
from tests.chaos.callers import Callers
from tests.chaos.cluster import Cluster, Shape
from tests.chaos.faults import KINDS, Faults, schedule
from tests.chaos.ledger import MOST_SHOWN, Ledger

PROGRESS_S = 10.0


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the load lasts")
    parser.add_argument("--seed", type=int, default=1, help="of faults and callers")
    parser.add_argument("--every", type=float, default=2.5, help="seconds between two faults")
    parser.add_argument("--api", type=int, default=Shape.api, help="API processes")
    parser.add_argument("--workers", type=int, default=Shape.workers, help="workers")
    parser.add_argument("--bulk", type=int, default=6, help="callers with 200 to 1,000 records")
    parser.add_argument("--small", type=int, default=8, help="callers with 1 to 16 records")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a good run too")
    given = parser.parse_args(argv)
    if given.api < 2 or given.workers < 3:
        parser.error("it takes --api 2 and --workers 3: one of each is never ended")
    return given


async def run(given: argparse.Namespace) -> int:
    """The exit status of a run."""
    ledger, name = Ledger(), secrets.token_hex(8)
    cluster = Cluster(Shape(api=given.api, workers=given.workers), name)
    print(f"seed {given.seed}, logs in {cluster.directory}", flush=True)
    try:
        await cluster.start()
        took_s, faults = await hurt(cluster, ledger, given)
        await examine(cluster, ledger)
    finally:
        await cluster.stop()
    ledger.violations += [*cluster.deaths, *audit.tracebacks(cluster), *audit.survivors(name)]
    report(ledger, cluster, faults, took_s)
    if ledger.violations:
        return 1
    if not given.keep:
        shutil.rmtree(cluster.directory)
    return 0


async def hurt(cluster: Cluster, ledger: Ledger, given: argparse.Namespace) -> tuple[float, Faults]:
    """Load and faults for so many seconds, then every answer; how long that took."""
    callers = Callers(cluster, ledger, given.seed, given.bulk, given.small)
    faults = Faults(cluster, callers)
    began = time.monotonic()
    loading = asyncio.ensure_future(callers.run())
    progress = asyncio.ensure_future(tell(ledger, faults, began))
    try:
        await faults.run(schedule(given.seed, given.seconds, given.every))
        await asyncio.sleep(max(0.0, began + given.seconds - time.monotonic()))
        callers.stop()
        await loading
    finally:
        loading.cancel()
        progress.cancel()
        await asyncio.gather(loading, progress, return_exceptions=True)
    return time.monotonic() - began, faults


async def tell(ledger: Ledger, faults: Faults, began: float) -> None:
    """A line now and then."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        checked, broken = ledger.counts["records checked"], len(ledger.violations)
        print(
            f"  {time.monotonic() - began:6.0f} s: {faults.done.total()} faults,"
            f" {checked:,} records checked, {broken} violations",
            flush=True,
        )


async def examine(cluster: Cluster, ledger: Ledger) -> None:
    """Looks for whatever is left when all is answered."""
    for entry in ledger.lost:
        ledger.blame(entry, "LOST: accepted and never answered")
    await cluster.ready()
    ledger.violations += await audit.settled(cluster)
    for look in (
        audit.dead_letters,
        lambda c, _: audit.immortal(c),
        lambda c, _: audit.open_files(c),
    ):
        ledger.violations += look(cluster, ledger)


def report(ledger: Ledger, cluster: Cluster, faults: Faults, took_s: float) -> None:
    print("\nfaults injected")
    for kind in KINDS:
        print(f"  {faults.done[kind]:6}  {kind}")
    print(f"  {faults.missed:6}  that could not be injected")
    print(f"  {cluster.restarts:6}  processes started again\n\nrequests")
    for name in sorted(ledger.counts):
        print(f"  {ledger.counts[name]:9,}  {name}")
    checked = ledger.counts["records checked"]
    print(
        f"\n{checked:,} records checked in {took_s:.0f} s ({checked / took_s:,.0f} a second);"
        f" {sum(entry.size for entry in ledger.lost):,} lost,"
        f" {sum('different results' in line for line in ledger.violations)} contradictory;"
        f" the slowest request took {ledger.slowest_s:.0f} s"
    )
    for line in ledger.violations[:MOST_SHOWN]:
        print(f"VIOLATION: {line}")
    if len(ledger.violations) > MOST_SHOWN:
        print(f"... and {len(ledger.violations) - MOST_SHOWN} more")
    print("every promise was kept" if not ledger.violations else f"logs: {cluster.directory}")


def end(number: int, frame: object) -> None:
    """Ends as Ctrl-C does, so that what was started is stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    signal.signal(signal.SIGTERM, end)
    try:
        sys.exit(asyncio.run(run(arguments(sys.argv[1:]))))
    except KeyboardInterrupt:
        sys.exit(130)
