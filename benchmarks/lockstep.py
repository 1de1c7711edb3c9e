"""The price of lock-step: the same sentences, static and continuous, on the same arithmetic.

    python -m benchmarks.lockstep [--model small|418m] [--slots 16] [--beams 5]

The first three rows are one engine: made to finish each batch before the next begins, with the
sentences as they come and sorted by length, and left to refill its slots. What they differ by is
lock-step and nothing else. transformers and CTranslate2 follow for scale.
"""

import argparse
import statistics
import sys
from pathlib import Path

from benchmarks import report
from benchmarks.contenders import Contender, by_length, continuous, ctranslate, transformers_static
from benchmarks.engine import MAX_LENGTH, WARM_UP, make_sentences, prepared, row
from benchmarks.exact import load_model
from benchmarks.workload import MIXES
from inference_worker.engine.continuous.checkpoint import load_checkpoint
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.protocol import Sentence


def main() -> int:
    given, machine = arguments(), report.machine()
    directory = prepared(given)
    for mix in MIXES:
        run_mix(given, directory, mix)
    print(f"\n{machine}.")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lockstep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=("small", "418m"), default="small")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--type", default="float32", help="compute type of the engine")
    parser.add_argument("--sentences", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cache", type=Path, default=Path.home() / ".cache" / "dragoman" / "benchmarks"
    )
    return parser.parse_args()


def run_mix(given: argparse.Namespace, directory: Path, mix: str) -> None:
    sentences = make_sentences(given.model, mix, given.sentences)
    rules = Rules(beams=given.beams, max_length=MAX_LENGTH)
    flow, runner = continuous(load_checkpoint(directory), rules, given.slots, given.type)

    def sorted_lockstep(sentences: list[Sentence]) -> dict[int, int]:
        return dict(runner.lockstep(by_length(sentences)))

    contenders = [
        Contender("this engine, static, as they come", runner.lockstep),
        Contender("this engine, static, sorted", sorted_lockstep),  # type: ignore[arg-type]
        flow,
        transformers_static(load_model(directory), rules, given.slots, in_order=True),
        transformers_static(load_model(directory), rules, given.slots, in_order=False),
        ctranslate(directory, given.cache, rules, given.slots, "int8", given.threads),
    ]
    shares = {}
    for contender in contenders:
        contender.translate(sentences[:WARM_UP])
    for _ in range(given.rounds):
        for contender in contenders:
            contender.measure(sentences)
            shares[contender.name] = runner.utilisation()
    ours = statistics.median(flow.cpu_s)
    print(f"\n{given.model}, {mix}, W {given.slots}, beams {given.beams}, {len(sentences)} texts")
    for contender in contenders:
        price = statistics.median(contender.cpu_s) / ours
        share = f", slots {shares[contender.name]:.3f} used" if contender in contenders[:3] else ""
        print(f"  {row(contender)}  {price:5.2f}x the time of continuous{share}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
