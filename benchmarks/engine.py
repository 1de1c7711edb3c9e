"""The continuous engine against transformers and CTranslate2, as ratios on the same sentences.

    python -m benchmarks.engine [--model small|418m] [--cells 16x1,32x1,16x5] [--rounds 3]
    python -m benchmarks.engine --device cuda --model 418m --cells 1x1,64x1,256x1,64x5,256x5

``418m`` is the shape of facebook/m2m100_418M with weights that give the outputs planned lengths
(benchmarks/countdown.py). A cell is slots × beams. The contenders of a cell take turns within each
round, so that a busy machine disturbs all of them; each one's median round counts. Ratios are given
in CPU time of this process and in wall time: with one thread they should agree. The bundled model
in int8 does not always say what it says in float32, and may loop where the other does not: then the
contenders' tokens differ, and so does what they had to do. On a GPU wall time counts, transformers
computes in bfloat16, and the floor that the device sets is given too.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
import transformers

from benchmarks import report
from benchmarks.ceilings import decoding_floor_s, measure_ceilings
from benchmarks.contenders import (
    Contender,
    Continuous,
    continuous,
    ctranslate,
    transformers_static,
)
from benchmarks.countdown import Size, countdown_sentences, write_countdown
from benchmarks.exact import load_model
from benchmarks.workload import MIXES, SMALL, SOURCE_TOKENS_MAX, planned_lengths, small_sentences
from inference_worker.engine.continuous.checkpoint import Checkpoint, load_checkpoint
from inference_worker.engine.continuous.linear import usable
from inference_worker.engine.continuous.placement import DTYPES
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.protocol import Sentence

MAX_LENGTH = 200
WARM_UP = 24  # sentences translated once before anything is timed
BASELINES = ("transformers", "CTranslate2")


def main() -> int:
    given, machine = arguments(), report.machine()
    given.types = given.types or ("float32,bfloat16,int8" if given.device == "cpu" else "bfloat16")
    directory = prepared(given)
    for mix in given.mixes.split(","):
        sentences = make_sentences(given.model, mix, given.sentences)
        for cell in given.cells.split(","):
            width, beams = (int(number) for number in cell.split("x"))
            rules = Rules(beams=beams, max_length=MAX_LENGTH)
            run_cell(given, directory, mix, width, rules, sentences)
    print(f"\n{machine}.")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", choices=("small", "418m"), default="small")
    parser.add_argument("--mixes", default=",".join(MIXES))
    parser.add_argument("--cells", default="16x1,32x1,16x5", help="slots x beams, with commas")
    parser.add_argument("--types", help="of the engine: float32,bfloat16,int8; bfloat16 on a GPU")
    parser.add_argument("--baselines", default=",".join(BASELINES), help="transformers is slow")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sentences", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path.home() / ".cache" / "dragoman" / "benchmarks",
        help="where the 418M checkpoint (1.4 GB) and the CTranslate2 models are kept",
    )
    return parser.parse_args()


def prepared(given: argparse.Namespace) -> Path:
    """Settles what the arguments say of this process; the folder of the model they name."""
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if given.model == "small":
        return SMALL
    directory: Path = given.cache / "countdown-418m"
    write_countdown(directory, Size())
    return directory


def make_sentences(model: str, mix: str, count: int) -> list[Sentence]:
    if model == "small":
        return small_sentences(mix, count)
    return countdown_sentences(planned_lengths(mix, count, MAX_LENGTH), Size())


def run_cell(
    given: argparse.Namespace,
    directory: Path,
    mix: str,
    width: int,
    rules: Rules,
    sentences: list[Sentence],
) -> None:
    """Times every contender on one mix at one width and prints the table."""
    checkpoint = load_checkpoint(directory)
    runners = {}
    contenders = []
    for compute_type in given.types.split(","):
        if usable(compute_type, given.device):
            contender, runners[contender.name] = continuous(
                checkpoint, rules, width, compute_type, given.device, SOURCE_TOKENS_MAX + 1
            )
            contenders.append(contender)
    halved = given.device != "cpu"
    if "transformers" in given.baselines:
        model = load_model(directory, given.device, torch.bfloat16 if halved else torch.float32)
        contenders.append(transformers_static(model, rules, width, in_order=False))
    if "CTranslate2" in given.baselines:
        yardstick = "float16" if halved else "int8"
        contenders.append(
            ctranslate(directory, given.cache, rules, width, yardstick, given.threads, given.device)
        )
    for contender in contenders:
        contender.translate(sentences[:WARM_UP])
    for _ in range(given.rounds):
        for contender in contenders:
            contender.measure(sentences)
    print(f"\n{given.model}, {mix}, W {width}, beams {rules.beams}, {len(sentences)} texts")
    for contender in contenders:
        runner = runners.get(contender.name)
        notes = "".join(ratio(base, contender) for base in contenders if is_baseline(base))
        if runner:
            notes += of_engine(contender, runner)
            if halved:
                notes += of_floor(checkpoint, contender, sentences, width, rules.beams)
        print(f"  {row(contender)}{notes}", flush=True)


def of_engine(contender: Contender, runner: Continuous) -> str:
    per_step = 1e3 * statistics.median(contender.wall_s) / runner.engine.steps
    used = f"  slots used {runner.utilisation():.3f}, saturated {runner.saturated:.3f}"
    return f"{used}, {per_step:.1f} ms a step"


def of_floor(
    checkpoint: Checkpoint, contender: Contender, sentences: list[Sentence], width: int, beams: int
) -> str:
    """What share of the time the device could not have done without."""
    dtype = DTYPES[contender.name.split()[1]]
    ceilings = measure_ceilings(contender.device, dtype)
    floor_s = decoding_floor_s(
        checkpoint,
        sentences,
        [contender.lengths[sentence.key] for sentence in sentences],
        width=width,
        beams=beams,
        itemsize=dtype.itemsize,
        ceilings=ceilings,
    )
    return (
        f"  {floor_s / statistics.median(contender.wall_s):.0%} of the floor"
        f" ({ceilings.bytes_per_s / 1e9:.0f} GB/s, {ceilings.operations_per_s / 1e12:.0f} TFLOP/s)"
    )


def is_baseline(contender: Contender) -> bool:
    return contender.name.startswith(BASELINES)


def row(contender: Contender) -> str:
    cpu = statistics.median(contender.cpu_s)
    spread = (max(contender.cpu_s) - min(contender.cpu_s)) / cpu
    return (
        f"{contender.name:40} {cpu:7.2f} s CPU (spread {spread:4.0%}), {contender.tokens:6}"
        f" tokens, {contender.tokens / cpu:6.0f} a second"
    )


def ratio(base: Contender, contender: Contender) -> str:
    """How many times as fast as a baseline, by CPU and by wall time."""
    cpu = statistics.median(base.cpu_s) / statistics.median(contender.cpu_s)
    wall = statistics.median(base.wall_s) / statistics.median(contender.wall_s)
    return f"  {cpu:5.2f}x {base.name.split()[0]} (wall {wall:.2f}x)"


if __name__ == "__main__":
    sys.exit(main())
