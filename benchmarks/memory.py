"""What the translation memory is worth, and what it costs where it never helps.

    python -m benchmarks.memory [--texts 300] [--requests 2000] [--connections 16]

Valkey, one API process and one worker with the bundled model translate single sentences for callers
who ask for the next one as soon as they have an answer. Once every request brings the same sentence
as no other (as far as there are so many), once they are drawn by Zipf's law: the text of rank r
comes 1/r times as often as the first, as words, searches and messages do. Each with the memory
switched off and on, empty at first, on a fresh service.

"cached" came from memory, "coalesced" waited for an equal sentence, or request, in flight.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import load, report, stacks
from benchmarks.requests import wrong
from benchmarks.servers import NotStarted, stop_in_order_when_terminated
from benchmarks.workload import Text, read_texts

SEED = 0
TIMEOUT_S = 600.0
HEADS = (
    "texts",
    "memory",
    "sentences/s",
    "p50 ms",
    "p95 ms",
    "cached",
    "coalesced",
    "in the engine",
)


@dataclass(frozen=True)
class Run:
    """One service, one list of texts."""

    rate: float  # requests, of one sentence each, per second
    latencies_ms: list[float]  # sorted
    cached: float  # shares of the sentences
    coalesced: float


def distinct(texts: Sequence[Text], count: int) -> list[Text]:
    """Every text once; again from the first where there are not so many."""
    return [texts[at % len(texts)] for at in range(count)]


def drawn(texts: Sequence[Text], count: int) -> list[Text]:
    """Texts as often as their rank says."""
    weights = [1 / rank for rank in range(1, len(texts) + 1)]
    return random.Random(SEED).choices(texts, weights, k=count)


def request(text: Text) -> load.Request:
    payload = {
        "fromLang": text.source_language,
        "records": [{"id": "0", "text": text.source}],
        "toLang": text.target_language,
    }
    raw = load.message("POST", "/translation?details=true", {"payload": payload})
    return load.Request(raw, lambda status, body: wrong(status, body, 1, blank=True))


def measured(texts: Sequence[Text], connections: int, memory: bool) -> Run:
    """Raises NotStarted when the service does not start, or answers wrongly."""
    worker = [sys.executable, "-m", "inference_worker"]
    environ = stacks.ENGINE_ALONE | {"DRAGOMAN_MEMORY": str(memory).lower()}
    with stacks.stack(worker, environ=environ) as service:
        where = load.address(service.url)
        began_s = load.now_s()
        answers = asyncio.run(
            load.drained(where, [request(text) for text in texts], connections, TIMEOUT_S)
        )
        spent_s = load.now_s() - began_s
    if wrong := [answer.failure for answer in answers if answer.failure]:
        raise NotStarted(f"{len(wrong)} of {len(answers)} answers were wrong: {wrong[0]}")
    records = [json.loads(answer.body)["result"][0] for answer in answers]
    sentences = sum(record["sentences"] for record in records)
    return Run(
        rate=sentences / spent_s,
        latencies_ms=sorted(answer.latency_s * 1000 for answer in answers),
        cached=sum(record["cached"] for record in records) / sentences,
        coalesced=sum(record["coalesced"] for record in records) / sentences,
    )


def row(name: str, memory: bool, run: Run) -> list[str]:
    return [
        name,
        "on" if memory else "off",
        f"{run.rate:.1f}",
        f"{statistics.median(run.latencies_ms):.0f}",
        f"{load.quantile(run.latencies_ms, 0.95):.0f}",
        f"{run.cached:.0%}",
        f"{run.coalesced:.0%}",
        f"{max(0.0, 1 - run.cached - run.coalesced):.0%}",
    ]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--texts", type=int, default=300, help="different ones that are drawn from")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args(arguments)
    if min(options.texts, options.requests, options.connections) < 1:
        parser.error("--texts, --requests and --connections must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    stop_in_order_when_terminated()
    machine = report.machine()
    texts = random.Random(SEED).sample(read_texts(), k=len(read_texts()))
    loads = {
        "distinct": distinct(texts, options.requests),
        "by Zipf's law": drawn(texts[: options.texts], options.requests),
    }
    rows, ratios = [], []
    try:
        for name, sent in loads.items():
            without = measured(sent, options.connections, memory=False)
            with_it = measured(sent, options.connections, memory=True)
            rows += [row(name, False, without), row(name, True, with_it)]
            ratios.append(f"{name}: {with_it.rate / without.rate:.2f} ×")
    except NotStarted as error:
        print(f"memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"{report.table(HEADS, rows)}\n\nWith memory over without: {'; '.join(ratios)}.\n")
    print(f"`{report.command('memory')}`\n\n{machine}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
