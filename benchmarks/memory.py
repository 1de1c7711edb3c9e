"""What the translation memory is worth, and what it costs where it never helps.

    python -m benchmarks.memory [--requests 1500] [--texts 300] [--rounds 2]

Valkey, one API process and one worker with the bundled model translate single sentences for callers
who ask for the next one as soon as they have an answer. Once every request brings a sentence that
no other brings, once they are drawn by Zipf's law: the text of rank r comes 1/r times as often as
the first, as words, searches and messages do. Each with the memory switched off and on, in turns,
each time on a fresh service whose memory is empty.

"cached" came from memory, "coalesced" waited for an equal sentence, or request, in flight.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import uvloop

from benchmarks import load, report, stacks
from benchmarks.report import tell
from benchmarks.requests import check, of_pair
from benchmarks.workload import Text, read_texts

SEED = 0
TIMEOUT_S = 600.0
WARM_UP = 16  # requests
HEADS = (
    *("texts", "memory", "sentences/s", "**on ÷ off**", "p50 ms", "p95 ms", "CPU-ms each"),
    *("cached", "coalesced", "in the engine"),
)


@dataclass
class Side:
    """One list of texts with the memory off or on, over all rounds."""

    seconds: float = 0.0
    cpu_s: float = 0.0  # of all tiers
    latencies_ms: list[float] = field(default_factory=list)
    sentences: int = 0
    cached: int = 0
    coalesced: int = 0

    @property
    def rate(self) -> float:
        return self.sentences / self.seconds

    def add(self, answers: Sequence[load.Answer], seconds: float, cpu_s: float) -> None:
        """A round, all of whose answers are right."""
        self.seconds += seconds
        self.cpu_s += cpu_s
        for answer in answers:
            (record,) = json.loads(answer.body)["result"]
            self.latencies_ms.append(1000 * answer.latency_s)
            self.sentences += record["sentences"]
            self.cached += record["cached"]
            self.coalesced += record["coalesced"]


def everything() -> list[Text]:
    """The shared sample in both directions, each sentence of a pair once, in random order."""
    pairs = read_texts()
    back = [Text(t.target_language, t.source_language, t.target, t.source) for t in pairs]
    found = {(t.source_language, t.target_language, t.source): t for t in (*pairs, *back)}
    return random.Random(SEED).sample(list(found.values()), k=len(found))


def drawn(texts: Sequence[Text], count: int) -> list[Text]:
    """Texts as often as their rank says."""
    weights = [1 / rank for rank in range(1, len(texts) + 1)]
    return random.Random(SEED).choices(texts, weights, k=count)


def measure(side: Side, texts: Sequence[Text], connections: int, memory: bool) -> None:
    """A round. Raises NotStarted when the service does not start, or answers wrongly."""
    environ = stacks.ENGINE_ALONE | {"DRAGOMAN_MEMORY": str(memory).lower()}
    sent = [of_pair([text], details=True) for text in texts]
    others = [Text("en", "de", f"Good morning, {number}.", "") for number in range(WARM_UP)]
    with stacks.stack(stacks.worker_of("small"), environ=environ) as service:
        where = load.address(service.url)
        warm_up = [of_pair([text]) for text in others]
        check(uvloop.run(load.drained(where, warm_up, WARM_UP, TIMEOUT_S)))
        with stacks.accounted(service) as spent:
            answers = uvloop.run(load.drained(where, sent, connections, TIMEOUT_S))
    check(answers)
    seconds = max(answer.ended_s for answer in answers)
    side.add(answers, seconds, sum(spent[0].by_tier.values()))


def rows(name: str, off: Side, on: Side) -> list[list[str]]:
    return [row(name, "off", off, "–"), row(name, "on", on, f"{on.rate / off.rate:.2f}")]


def row(name: str, memory: str, side: Side, ratio: str) -> list[str]:
    ordered, every = sorted(side.latencies_ms), side.sentences
    worked = max(0, every - side.cached - side.coalesced)
    return [
        name,
        memory,
        f"{side.rate:.1f}",
        ratio,
        *(f"{load.quantile(ordered, share):.0f}" for share in (0.5, 0.95)),
        f"{1000 * side.cpu_s / every:.1f}",
        *(f"{share / every:.0%}" for share in (side.cached, side.coalesced, worked)),
    ]


def told(options: argparse.Namespace, machine: str) -> str:
    """Measures, and reports in Markdown."""
    texts = everything()
    loads = {
        "distinct": texts[: options.requests],
        "by Zipf's law": drawn(texts[: options.texts], options.requests),
    }
    sides = {name: {memory: Side() for memory in (False, True)} for name in loads}
    for at in range(options.rounds):
        for name, sent in loads.items():
            for memory in (False, True) if at % 2 == 0 else (True, False):
                side = sides[name][memory]
                measure(side, sent, options.connections, memory)
                tell(f"{name}, memory {'on' if memory else 'off'}: {side.rate:.1f} sentences/s")
    table = [line for name, both in sides.items() for line in rows(name, both[False], both[True])]
    return (
        f"`{report.command('memory')}`\n\n"
        f"Bundled model, one worker whose engine has one thread. {options.connections} callers who"
        f" wait for their answers send {options.requests:,} requests of one text: each another one"
        f" (*distinct*), or drawn from {options.texts:,} by Zipf's law. Off"
        f" and on in turn, {options.rounds} times, each on a fresh service. *CPU-ms each*: of API,"
        f" Redis and worker, for a sentence.\n\n{report.table(HEADS, table)}\n\n{machine}.\n"
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("memory", __doc__)
    add = parser.add_argument
    add("--texts", type=int, default=300, help="different ones that are drawn from")
    add("--requests", type=int, default=1_500, help="of each list of texts")
    add("--connections", type=int, default=16, help="callers")
    add("--rounds", type=int, default=2, help="measurements of each list, off and on")
    options = parser.parse_args(arguments)
    if min(options.texts, options.requests, options.connections, options.rounds) < 1:
        parser.error("--texts, --requests, --connections and --rounds must be at least 1")
    if max(options.texts, options.requests) > (most := len(everything())):
        parser.error(f"there are {most} different texts: --texts and --requests take no more")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    return report.made("memory", lambda machine: told(options, machine), options.out)


if __name__ == "__main__":
    sys.exit(main())
