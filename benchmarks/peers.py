"""The same weights behind what one would choose instead, under the same load.

    python -m benchmarks.peers [--peers dragoman,libretranslate,…] [--seconds 5] [--threads 1]

Each peer runs in a virtual environment of its own (``~/.cache/dragoman/peers``, made by the first
call, which takes some minutes and gigabytes) with the bundled model, five beams and the same number
of threads for the model. Dragoman is ``dragoman up`` as installed, with its translation memory off,
since the sentences repeat and the peers have none. Every request is one English sentence into
Japanese. Three questions:

- sentences a second when there is always work: 64 callers who wait for their answers;
- the latency of all at one load that all can bear (``--rate``), at random times;
- what becomes of requests at three times its own rate, when callers wait ``--patience-s`` and then
  leave: answered in that time, refused (and how fast), or neither. Dragoman is told of it with
  ``X-Deadline-Ms``; the peers have no word for it.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import uvloop

from benchmarks import load, report
from benchmarks.requests import sentences
from benchmarks.servers import NotStarted, Server, started, stop_in_order_when_terminated
from benchmarks.services import (
    BEAMS,
    CTRANSLATE2,
    GENERATE,
    HOST,
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
REFUSALS = ("status 429", "status 503")
CRITERIA = (
    "Wanted: 3 times the next best that uses transformers, 1.3 times the best that uses"
    " CTranslate2, and at overload everything answered, or refused within milliseconds."
)

# ── Measuring ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Overloaded:
    """What became of requests at a multiple of the peer's own rate."""

    sent: int
    answered: int  # within the patience
    refused_s: list[float]  # how long each refusal took, sorted
    others: dict[str, int]  # what became of the rest

    def row(self) -> list[str]:
        refused = len(self.refused_s)
        fast = f"{1000 * load.quantile(self.refused_s, 0.95):.0f}" if refused else "–"
        told = self.answered + refused
        shares = (self.answered, refused, self.sent - told)
        return [*(f"{100 * share / self.sent:.0f}%" for share in shares), fast]


@dataclass(frozen=True)
class Found:
    """What a peer did, or why it did not."""

    peer: Peer
    rate: float = 0.0  # sentences a second when there is always work
    cpu_s: float = 0.0  # of all its processes, a sentence
    quiet_ms: tuple[float, ...] = ()  # P50 and P95 at the common load
    texts: tuple[str, ...] = ()  # its answers there, the same requests for all
    overload: Overloaded | None = None
    failure: str = ""

    def row(self, ours: "Found") -> list[str]:
        title = [self.peer.title, self.peer.engine]
        if self.overload is None:
            return [*title, *["–"] * 10]
        same = sum(one == other for one, other in zip(self.texts, ours.texts, strict=False))
        return [
            *title,
            f"{self.rate:.1f}",
            f"{ours.rate / self.rate:.2f}" if ours.rate else "–",
            f"{100 * same / len(self.texts):.0f}%" if ours.texts else "–",
            f"{1000 * self.cpu_s:.0f}",
            *(f"{value:.0f}" for value in self.quiet_ms),
            *self.overload.row(),
        ]


HEADS = (
    *("service", "engine", "sentences/s", "Dragoman is × as fast", "same text", "CPU-ms each"),
    *("P50 ms", "P95 ms", "answered", "refused", "neither", "P95 of refusals, ms"),
)


@contextmanager
def running(peer: Peer, given: Given) -> Iterator[tuple[load.Address, Server]]:
    """The peer, once it translates. Raises NotStarted."""
    port = free_port(HOST)
    argv, environ = peer.command(given, port), peer.environ(given)
    # Nothing to wait for in its output: it is ready when it translates. And some do not stop while
    # requests wait that nobody wants any more; then they are killed.
    late = suppress(subprocess.TimeoutExpired)
    with late, started(argv, "", environ=environ, stop_s=STOP_S) as server:
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


def measured(peer: Peer, given: Given, rate: float, seconds: float) -> Found:
    """Raises NotStarted."""
    install(peer, given.cache)
    peer.prepare(given)
    with running(peer, given) as (where, server):
        ask = peer.ask(Given(given.threads, 60.0, given.cache))
        full, cpu_s = saturated(where, server, ask, seconds)
        tell(f"{peer.name}: {full:.1f} sentences/s")
        due_s = load.poisson(rate, 2 * seconds)
        quiet = uvloop.run(load.open_loop(where, sent(ask, len(due_s)), due_s, 60.0, kept=CALLERS))
        if wrong := [one.failure for one in quiet if one.failure]:
            raise NotStarted(f"{len(wrong)} of {len(quiet)} answers were wrong: {wrong[0]}")
        ordered = sorted(1000 * one.latency_s for one in quiet)
        quantiles = tuple(load.quantile(ordered, share) for share in (0.5, 0.95))
        overload = overloaded(where, peer.ask(given), OVERLOAD * full, given.patience_s)
    texts = tuple(text_of(one.body) for one in quiet)
    return Found(peer, full, cpu_s, quantiles, texts, overload)


def saturated(where: load.Address, server: Server, ask: Ask, seconds: float) -> tuple[float, float]:
    """Right answers a second while callers keep coming, and processor seconds for each."""
    requests = sent(ask, 600)
    uvloop.run(load.closed_loop(where, requests, CALLERS, WARM_UP_S))
    before_s = sum(server.cpu_s().values())
    answers = uvloop.run(load.closed_loop(where, requests, CALLERS, seconds))
    cpu_s = sum(server.cpu_s().values()) - before_s
    right = [one for one in answers if not one.failure]
    if not right:
        raise NotStarted(f"no right answer: {answers[0].failure if answers else 'none at all'}")
    return steady_rate([one.ended_s for one in right], seconds), cpu_s / len(right)


def steady_rate(ended_s: Sequence[float], seconds: float) -> float:
    """Answers a second until the callers stopped coming, or over all if few came by then."""
    early = sum(end_s <= seconds for end_s in ended_s)
    return early / seconds if early >= CALLERS else len(ended_s) / max(ended_s)


def overloaded(where: load.Address, ask: Ask, rate: float, patience_s: float) -> Overloaded:
    due_s = load.poisson(rate, OVERLOAD_S)
    requests = sent(ask, len(due_s))
    answers = uvloop.run(load.open_loop(where, requests, due_s, patience_s, kept=CALLERS))
    return judged(answers)


def judged(answers: Sequence[load.Answer]) -> Overloaded:
    refused_s = sorted(one.latency_s for one in answers if one.failure in REFUSALS)
    others = Counter(one.failure for one in answers if one.failure not in ("", *REFUSALS))
    answered = sum(not one.failure for one in answers)
    return Overloaded(len(answers), answered, refused_s, dict(others))


def sent(ask: Ask, count: int) -> list[load.Request]:
    return [ask(text) for text in islice(cycle(sentences()), count)]


# ── The report ───────────────────────────────────────────────────────────────────────────────────


def told(found: Sequence[Found], options: argparse.Namespace, machine: str) -> str:
    ours = next((one for one in found if one.peer.name == OURS), Found(PEERS[0]))
    notes = [f"- {one.peer.title}: {one.peer.settings}." for one in found]
    notes += [
        f"- {one.peer.title}, neither answered nor refused: "
        + ", ".join(f"{count} × {kind}" for kind, count in one.overload.others.items())
        + "."
        for one in found
        if one.overload and one.overload.others
    ]
    failed = [f"- {one.peer.title} is missing: {one.failure}" for one in found if one.failure]
    parts = [
        f"`{report.command('peers')}`",
        f"{options.threads} thread{'s' * (options.threads > 1)} for each model, {BEAMS} beams."
        f" Sentences/s: {CALLERS} callers who wait. P50, P95: at {options.rate:g} requests/s."
        f" The last four: at {OVERLOAD} times its own rate for {OVERLOAD_S:g} s, with callers who"
        f" wait {options.patience_s:g} s; Dragoman alone has a word for that, and is told"
        f" (`X-Deadline-Ms`). The client shares the processors. {CRITERIA}",
        report.table(HEADS, [one.row(ours) for one in found]),
        "\n".join([*notes, *failed, *(f"- {line}" for line in ratios(found))]),
        f"{machine}.",
    ]
    return "\n\n".join(parts) + "\n"


def ratios(found: Sequence[Found]) -> list[str]:
    """How many times as fast as the best of each kind."""
    rates = {one.peer.name: one.rate for one in found if one.rate}
    ours = rates.pop(OURS, 0.0)
    lines = []
    for engine, wanted in ((GENERATE, 3.0), (CTRANSLATE2, 1.3)):
        kind = [one for one in found if one.peer.engine == engine and one.peer.name in rates]
        if ours and kind:
            best = max(kind, key=lambda one: one.rate)
            lines.append(
                f"Against the best that uses {engine} ({best.peer.title}):"
                f" {ours / best.rate:.2f} times (wanted {wanted:g})."
            )
    return lines


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = [peer.name for peer in PEERS]
    add("--peers", default=",".join(names), help="some of them, with commas")
    add("--seconds", type=float, default=5.0, help="of saturation; twice that at the common load")
    add("--rate", type=float, default=5.0, help="requests a second of the common load")
    add("--patience-s", type=float, default=5.0, help="how long a caller waits at overload")
    add("--threads", type=int, default=1, help="of each model")
    add("--cache", type=Path, default=CACHE, help="where the environments are kept")
    add("--out", type=Path, default=Path("runs/peers"), help="folder of the report")
    options = parser.parse_args(arguments)
    options.peers = options.peers.split(",")
    if unknown := set(options.peers) - set(names):
        parser.error(f"--peers: {', '.join(sorted(unknown))} is not one of {', '.join(names)}")
    if not 0 < options.seconds <= 60 or not 0 < options.rate <= 1_000:
        parser.error("--seconds must be at most 60, --rate at most 1000")
    if not 0 < options.patience_s <= 60 or not 1 <= options.threads <= 256:
        parser.error("--patience-s must be at most 60, --threads between 1 and 256")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every peer could be measured."""
    options = parsed(arguments)
    stop_in_order_when_terminated()
    machine = report.machine()
    given = Given(options.threads, options.patience_s, options.cache)
    found: list[Found] = []
    try:
        for peer in PEERS:
            if peer.name in options.peers:
                try:
                    found.append(measured(peer, given, options.rate, options.seconds))
                except (
                    NotStarted,
                    OSError,
                    EOFError,
                    ValueError,
                    subprocess.SubprocessError,
                ) as error:
                    found.append(Found(peer, failure=str(error)))
                    tell(f"{peer.name}: {error}")
    except KeyboardInterrupt:
        return 130
    text = told(found, options, machine)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.md").write_text(text, encoding="utf-8")
    return int(any(one.failure for one in found))


if __name__ == "__main__":
    sys.exit(main())
