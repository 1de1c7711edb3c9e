"""What replicas bring, and that the two tiers scale apart.

    python -m benchmarks.replicas [--records 1600] [--batch-s 0.5] [--slots 16]

Real Valkey, real API processes, real workers over HTTP; only the workers' engine waits a stated
time per batch instead of computing (``benchmarks/paced``), so that two processors do not decide how
many of them are useful. Three tables:

- workers: the same records sent at once to 1, 2, 4 and 8 workers, with 1 and with 2 API processes.
  Time until the last answer, and its cost in worker-seconds per 1,000 records;
- API, a tier alone: readers of a finished job, which no worker sees, against 1 and 2 processes;
- API, with workers that wait for nothing: what a request costs each tier in processor time.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import uvloop

from benchmarks import load, report, stacks
from benchmarks.report import tell
from benchmarks.requests import batches, check, translation, warm_up
from benchmarks.stacks import Spent, Stack, accounted

WORKERS, API_PROCESSES = (1, 2, 4, 8), (1, 2)
RECORDS_PER_REQUEST = 16
RECORDS, BATCH_S, SLOTS = 1_600, 0.5, 16
TIMEOUT_S = 600.0
CONNECTIONS, CLOSED_S, ROUNDS = 64, 5.0, 3
INSTANT_WORKERS, INSTANT_SLOTS = 2, 64
MOST_RECORDS, MOST_S = 100_000, 3_600


def stack(
    workers: int, api_processes: int, slots: int, batch_s: float
) -> AbstractContextManager[Stack]:
    """The tiers with workers that wait instead of computing."""
    worker = stacks.paced(batch_s, slots).worker
    return stacks.stack(worker, workers=workers, api_processes=api_processes)


def drained(service: Stack, records: int) -> tuple[float, list[load.Answer], Spent]:
    """Sends everything at once; seconds until the last answer."""
    sent = batches(-(-records // RECORDS_PER_REQUEST), RECORDS_PER_REQUEST)
    where = load.address(service.url)
    uvloop.run(warm_up(where))
    with accounted(service) as spent:
        answers = uvloop.run(load.open_loop(where, sent, [0.0] * len(sent), TIMEOUT_S))
    return max(answer.latency_s for answer in answers), answers, spent[0]


WORKER_HEADS = (
    *("workers", "API processes", "answered", "time", "records/s", "speed-up", "of ideal"),
    *("worker-s per 1,000", "API CPU-ms per 1,000"),
)


def worker_rows(records: int, slots: int, batch_s: float) -> list[list[str]]:
    """Time and cost as each tier grows. The ideal is full batches without a pause."""
    rows = []
    alone_s: dict[int, float] = {}
    for processes, workers in itertools.product(API_PROCESSES, WORKERS):
        with stack(workers, processes, slots, batch_s) as service:
            seconds, answers, spent = drained(service, records)
        total = len(answers) * RECORDS_PER_REQUEST
        right = sum(not answer.failure for answer in answers)
        done = right * RECORDS_PER_REQUEST
        alone_s.setdefault(processes, seconds)
        ideal_s = -(-total // (slots * workers)) * batch_s
        row = [
            str(workers),
            str(processes),
            f"{100 * right / len(answers):.0f}%",
            f"{seconds:.1f}",
            f"{done / seconds:.0f}",
            f"{alone_s[processes] / seconds:.2f}",
            f"{100 * ideal_s / seconds:.0f}%",
            f"{1000 * workers * seconds / total:.1f}",
            f"{1e6 * spent.by_tier['api'] / total:.0f}",
        ]
        tell("  ".join(row))
        rows.append(row)
    return rows


API_HEADS = (
    *("API processes", "requests/s", "p50 ms", "p95 ms", "busiest process"),
    *("API CPU-µs", "worker CPU-µs", "Redis CPU-µs", "client CPU-µs"),
)


@dataclass(frozen=True)
class Pressed:
    """What came of one request when ``CONNECTIONS`` of them were always in flight."""

    rate: float  # a second
    latencies_ms: list[float]  # sorted
    spent: Spent

    def row(self, processes: int) -> list[str]:
        each = 1e6 / len(self.latencies_ms)
        shares = self.spent.api_shares
        row = [
            str(processes),
            f"{self.rate:.0f}",
            *(f"{load.quantile(self.latencies_ms, share):.1f}" for share in (0.5, 0.95)),
            f"{100 * shares[0]:.0f}%" if shares else "–",
            *(f"{self.spent.by_tier[tier] * each:.0f}" for tier in ("api", "workers", "redis")),
            f"{self.spent.client * each:.0f}",
        ]
        tell("  ".join(row))
        return row


def pressed(service: Stack, request: load.Request, seconds: float) -> Pressed:
    """Raises NotStarted when an answer is wrong."""
    where = load.address(service.url)
    with accounted(service) as found:
        answers = uvloop.run(load.closed_loop(where, [request], CONNECTIONS, seconds))
    check(answers)
    latencies_ms = sorted(answer.latency_s * 1000 for answer in answers)
    rate = load.steady_rate([answer.ended_s for answer in answers], seconds, CONNECTIONS)
    return Pressed(rate, latencies_ms, found[0])


async def finished_job(where: load.Address) -> load.Request:
    """A poll of a job that is over."""
    payload = {"fromLang": "en", "toLang": "ja", "records": [{"id": 1, "text": "Good morning."}]}
    connection = await load.Connection.open(where)
    try:
        submit = load.message("POST", "/jobs", {"payload": payload})
        _, body = await connection.exchange(submit)
        path = f"/jobs/{json.loads(body)['id']}"
        await connection.exchange(load.message("GET", f"{path}?wait=30"))
    finally:
        connection.close()
    return load.Request(load.message("GET", path), over)


def over(status: int, body: bytes) -> str:
    return "" if status == 200 and json.loads(body)["state"] == "done" else "not done"


def api_rows(seconds: float, rounds: int) -> tuple[list[list[str]], list[list[str]]]:
    """Rows for polls of a finished job, and for translations by workers that wait for nothing: of
    each number of processes the median round."""
    polls: dict[int, list[Pressed]] = {}
    translations: dict[int, list[Pressed]] = {}
    for _, processes in itertools.product(range(rounds), API_PROCESSES):
        with stack(INSTANT_WORKERS, processes, INSTANT_SLOTS, batch_s=0.0) as service:
            where = load.address(service.url)
            uvloop.run(warm_up(where))
            poll = uvloop.run(finished_job(where))
            polls.setdefault(processes, []).append(pressed(service, poll, seconds))
            one = translation(["Good morning."])
            translations.setdefault(processes, []).append(pressed(service, one, seconds))
    return _medians(polls), _medians(translations)


def _medians(measured: dict[int, list[Pressed]]) -> list[list[str]]:
    return [
        sorted(found, key=lambda one: one.rate)[len(found) // 2].row(processes)
        for processes, found in measured.items()
    ]


def told(options: argparse.Namespace, machine: str) -> str:
    """Measures, and reports in Markdown."""
    records, slots, batch_s = options.records, options.slots, options.batch_s
    workers = report.table(WORKER_HEADS, worker_rows(records, slots, batch_s))
    polls, translations = api_rows(options.closed_s, options.rounds)
    times = f"{options.closed_s:g} s, the median of {options.rounds}"
    return (
        f"`{report.command('replicas')}`\n\n"
        f"**Workers.** {records:,} records in requests of {RECORDS_PER_REQUEST}, all sent at once;"
        f" a batch of up to {slots} sentences takes {batch_s:g} s, so one worker does at most"
        f" {slots / batch_s:.0f} records/s.\n\n{workers}\n\n"
        f"**API alone.** {CONNECTIONS} connections poll a finished job for {times};"
        f" no worker takes part.\n\n{report.table(API_HEADS, polls)}\n\n"
        f"**API with workers that wait for nothing.** {CONNECTIONS} connections send one-record"
        f" `POST /translation` for {times}; {INSTANT_WORKERS} workers.\n\n"
        f"{report.table(API_HEADS, translations)}\n\n{machine}.\n"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("replicas", __doc__)
    add = parser.add_argument
    add("--records", type=int, default=RECORDS, help="records of each measurement of workers")
    add("--slots", type=int, default=SLOTS, help="sentences of a full batch")
    add("--batch-s", type=float, default=BATCH_S, help="how long a batch takes")
    add("--closed-s", type=float, default=CLOSED_S, help="length of each measurement of the API")
    add("--rounds", type=int, default=ROUNDS, help="measurements of each number of API processes")
    options = parser.parse_args(arguments)
    if not 1 <= options.records <= MOST_RECORDS or options.slots < 1:
        parser.error(f"--records must be between 1 and {MOST_RECORDS}, --slots at least 1")
    if not 1 <= options.rounds <= 20:
        parser.error("--rounds must be between 1 and 20")
    if options.batch_s < 0 or not 0 < options.closed_s <= 60:
        parser.error("--batch-s must not be below 0, --closed-s be between 0 and 60")
    if options.records / options.slots * options.batch_s * 4 > MOST_S:
        parser.error(f"that would take more than {MOST_S} s")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    return report.made("replicas", lambda machine: told(options, machine), options.out)


if __name__ == "__main__":
    sys.exit(main())
