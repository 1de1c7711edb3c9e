"""The same weights behind what one would choose instead, under the same load.

    python -m benchmarks.peers [--peers dragoman,libretranslate,…] [--seconds 5] [--threads 1]

Each peer runs in a virtual environment of its own (``~/.cache/dragoman/peers``, made by the first
call, which takes some minutes and gigabytes) with the bundled model, five beams and the same number
of threads for the model. Dragoman is ``dragoman up`` as installed, with its translation memory off,
since the sentences repeat and the peers have none. Every request is one English sentence into
Japanese. Each of ``--rounds`` goes through all of them, each started afresh. Three questions:

- sentences a second when there is always work: 64 callers who wait for their answers; the median
  round counts, and so does the median of the rounds' ratios;
- the latency of all at one load that all can bear (``--rate``), at random times;
- what becomes of requests at three times its own rate, when callers wait ``--patience-s`` and then
  leave: answered in that time, refused (and how fast), or neither. Dragoman is told of it with
  ``X-Deadline-Ms``; the peers have no word for it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

import uvloop

from benchmarks import load, report
from benchmarks.report import tell
from benchmarks.requests import check, sentences
from benchmarks.servers import HOST, NotStarted, Server, started
from benchmarks.services import (
    BEAMS,
    CTRANSLATE2,
    GENERATE,
    OURS,
    PEERS,
    Ask,
    Given,
    Peer,
    install,
    last_line,
    text_of,
)
from dragoman.stack import free_port

CACHE = Path.home() / ".cache" / "dragoman" / "peers"
CALLERS = 64
OVERLOAD = 3
OVERLOAD_S = 8.0
START_S, STOP_S = 180.0, 10.0
WARM_UP_S = 2.0
PATIENCE_S = 60.0  # of callers but at overload
REFUSALS = ("status 429", "status 503")
CRITERIA = (
    "Wanted: 3 times the next best that uses transformers, 1.3 times the best that uses"
    " CTranslate2, and at overload everything answered, or refused within milliseconds."
)

# ── Measuring ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Found:
    """What a peer did, round by round, or why it did not."""

    peer: Peer
    rates: list[float] = field(default_factory=list)  # sentences/s when there is always work
    cpu_s: list[float] = field(default_factory=list)  # of all its processes, a sentence
    quiet: list[load.Answer] = field(default_factory=list)  # at the common load
    overload: list[load.Answer] = field(default_factory=list)  # at a multiple of its own rate
    failure: str = ""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def texts(self) -> list[str]:
        return [text_of(one.body) for one in self.quiet]

    def row(self, ours: "Found") -> list[str]:
        title = [self.peer.title, self.peer.engine]
        if self.failure:
            return [*title, *["–"] * 10]
        same = sum(one == other for one, other in zip(self.texts, ours.texts, strict=False))
        latencies_ms = sorted(1000 * one.latency_s for one in self.quiet)
        return [
            *title,
            f"{self.rate:.1f}",
            spread(times_as_fast(ours, self)),
            f"{100 * same / len(self.texts):.0f}%" if ours.texts else "–",
            f"{1000 * statistics.median(self.cpu_s):.0f}",
            *(f"{load.quantile(latencies_ms, share):.0f}" for share in (0.5, 0.95)),
            *judged(self.overload),
        ]


def times_as_fast(one: Found, other: Found) -> list[float]:
    """By round."""
    return [mine / theirs for mine, theirs in zip(one.rates, other.rates, strict=False)]


def spread(ratios: Sequence[float]) -> str:
    """The median, and how far the rounds lie apart."""
    if not ratios:
        return "–"
    apart = f" ({min(ratios):.2f}–{max(ratios):.2f})" if min(ratios) < max(ratios) else ""
    return f"{statistics.median(ratios):.2f}{apart}"


def judged(answers: Sequence[load.Answer]) -> list[str]:
    """Answered within the patience, refused, neither; and how soon refusals came."""
    refused_ms = sorted(1000 * one.latency_s for one in answers if one.failure in REFUSALS)
    counts = [sum(not one.failure for one in answers), len(refused_ms)]
    counts.append(len(answers) - sum(counts))
    shares = [f"{100 * count / len(answers):.1f}%" for count in counts]
    return [*shares, f"{load.quantile(refused_ms, 0.95):.0f}" if refused_ms else "–"]


def neither(answers: Sequence[load.Answer]) -> Counter[str]:
    """What became of those that were not answered and not refused."""
    return Counter(one.failure for one in answers if one.failure not in ("", *REFUSALS))


HEADS = (
    *("service", "engine", "sentences/s", "Dragoman is × as fast", "same text", "CPU-ms each"),
    *("P50 ms", "P95 ms", "answered", "refused", "neither", "P95 of refusals, ms"),
)


@contextmanager
def running(peer: Peer, given: Given) -> Iterator[tuple[load.Address, Server]]:
    """The peer, once it translates. Raises NotStarted."""
    port = free_port(HOST)
    argv, environ = peer.command(given, port), peer.environ(given)
    # Nothing to wait for in its output: it is ready when it translates.
    with started(argv, "", environ=environ, stop_s=STOP_S) as server:
        where = (HOST, port)
        ask = peer.ask(given)
        end_s = time.monotonic() + START_S
        while failure := uvloop.run(first_answer(where, ask("Good morning."))):
            if time.monotonic() > end_s or not server.running():
                raise NotStarted(f"does not translate: {failure}; {last_line(server.said())}")
            time.sleep(0.2)
        yield where, server


async def first_answer(where: load.Address, request: load.Request) -> str:
    """ "" once it is right."""
    (answer,) = await load.open_loop(where, [request], [0.0], 30.0)
    return answer.failure


def measure(found: Found, given: Given, rate: float, seconds: float) -> None:
    """A round of one peer. Raises NotStarted."""
    peer = found.peer
    install(peer, given.cache)
    peer.prepare(given)
    with running(peer, given) as (where, server):
        patient = peer.ask(replace(given, patience_s=PATIENCE_S))
        full, cpu_s = saturated(where, server, patient, seconds)
        tell(f"{peer.name}: {full:.1f} sentences/s")
        due_s = load.poisson(rate, 2 * seconds, len(found.rates))
        requests = sent(patient, len(due_s))
        quiet = uvloop.run(load.open_loop(where, requests, due_s, PATIENCE_S, kept=CALLERS))
        check(quiet)
        due_s = load.poisson(OVERLOAD * full, OVERLOAD_S)
        requests = sent(peer.ask(given), len(due_s))
        answers = uvloop.run(load.open_loop(where, requests, due_s, given.patience_s, kept=CALLERS))
    found.rates.append(full)
    found.cpu_s.append(cpu_s)
    found.quiet += quiet
    found.overload += answers


def saturated(where: load.Address, server: Server, ask: Ask, seconds: float) -> tuple[float, float]:
    """Right answers a second while callers keep coming, and processor seconds for each."""
    requests = sent(ask, 600)
    uvloop.run(load.closed_loop(where, requests, CALLERS, WARM_UP_S))
    before_s = server.cpu_s()
    answers = uvloop.run(load.closed_loop(where, requests, CALLERS, seconds))
    cpu_s = server.cpu_s() - before_s
    right = [one for one in answers if not one.failure]
    if not right:
        raise NotStarted(f"no right answer: {answers[0].failure if answers else 'none at all'}")
    rate = load.steady_rate([one.ended_s for one in right], seconds, CALLERS)
    return rate, cpu_s / len(right)


def sent(ask: Ask, count: int) -> list[load.Request]:
    return [ask(text) for text in islice(cycle(sentences()), count)]


# ── The report ───────────────────────────────────────────────────────────────────────────────────


def told(found: Sequence[Found], options: argparse.Namespace, machine: str) -> str:
    ours = next((one for one in found if one.peer.name == OURS), Found(PEERS[0]))
    notes = [f"- {one.peer.title}: {one.peer.settings}." for one in found]
    notes += [
        f"- {one.peer.title}, neither answered nor refused: "
        + ", ".join(f"{count} × {kind}" for kind, count in others.most_common())
        + "."
        for one in found
        if (others := neither(one.overload))
    ]
    failed = [f"- {one.peer.title} is missing: {one.failure}" for one in found if one.failure]
    parts = [
        f"`{report.command('peers')}`",
        f"{options.threads} thread{'s' * (options.threads > 1)} for each model, {BEAMS} beams."
        f" {options.rounds} round{'s' * (options.rounds > 1)} in turns: the median, and in brackets"
        f" the rounds' extremes. Sentences/s: {CALLERS} callers who wait. P50, P95: at"
        f" {options.rate:g} requests/s. The last four: at {OVERLOAD} times its own rate for"
        f" {OVERLOAD_S:g} s, with callers who wait {options.patience_s:g} s; Dragoman alone has a"
        f" word for that, and is told (`X-Deadline-Ms`). The client shares the processors."
        f" {CRITERIA}",
        report.table(HEADS, [one.row(ours) for one in found]),
        "\n".join([*notes, *failed, *(f"- {line}" for line in ratios(found, ours))]),
        f"{machine}.",
    ]
    return "\n\n".join(parts) + "\n"


def ratios(found: Sequence[Found], ours: Found) -> list[str]:
    """How many times as fast as the best of each kind."""
    lines = []
    for engine, wanted in ((GENERATE, 3.0), (CTRANSLATE2, 1.3)):
        kind = [one for one in found if one.peer.engine == engine and one.rates]
        if ours.rates and kind:
            best = max(kind, key=lambda one: one.rate)
            lines.append(
                f"Against the best that uses {engine} ({best.peer.title}):"
                f" {spread(times_as_fast(ours, best))} times (wanted {wanted:g})."
            )
    return lines


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = report.parser("peers", __doc__)
    add = parser.add_argument
    names = [peer.name for peer in PEERS]
    add("--peers", default=",".join(names), help="some of them, with commas")
    add("--rounds", type=int, default=3, help="through all of them, six minutes each")
    add("--seconds", type=float, default=5.0, help="of saturation; twice that at the common load")
    add("--rate", type=float, default=5.0, help="requests a second of the common load")
    add("--patience-s", type=float, default=5.0, help="how long a caller waits at overload")
    add("--threads", type=int, default=1, help="of each model")
    add("--cache", type=Path, default=CACHE, help="where the environments are kept")
    options = parser.parse_args(arguments)
    options.peers = options.peers.split(",")
    if unknown := set(options.peers) - set(names):
        parser.error(f"--peers: {', '.join(sorted(unknown))} is not one of {', '.join(names)}")
    if not 0 < options.seconds <= 60 or not 0 < options.rate <= 1_000:
        parser.error("--seconds must be at most 60, --rate at most 1000")
    if not 1 <= options.rounds <= 20:
        parser.error("--rounds must be between 1 and 20")
    if not 0 < options.patience_s <= 60 or not 1 <= options.threads <= 256:
        parser.error("--patience-s must be at most 60, --threads between 1 and 256")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every peer could be measured."""
    options = parsed(arguments)
    given = Given(options.threads, options.patience_s, options.cache)
    found = [Found(peer) for peer in PEERS if peer.name in options.peers]

    def measure_all(machine: str) -> str:
        for at in range(options.rounds):
            # There and back again: nobody is always first, or always beside the same one.
            for one in found if at % 2 == 0 else reversed(found):
                try_to_measure(one, given, options)
        return told(found, options, machine)

    status = report.made("peers", measure_all, options.out)
    return status or int(any(one.failure for one in found))


def try_to_measure(found: Found, given: Given, options: argparse.Namespace) -> None:
    """A round, unless one has failed before."""
    if found.failure:
        return
    try:
        measure(found, given, options.rate, options.seconds)
    except (NotStarted, OSError, ValueError, subprocess.SubprocessError) as error:
        found.failure = str(error) or type(error).__name__
        tell(f"{found.peer.name}: {found.failure}")


if __name__ == "__main__":
    sys.exit(main())
