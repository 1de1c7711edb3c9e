"""The bare engine: what a worker computes with, without the worker, Redis or HTTP around it.

    python -m benchmarks.bare --records 1000 [--model small|418m] [flags of dragoman-worker]

translates sentences that are all there from the start and prints a line of JSON: records, seconds,
processor seconds. With ``--rates`` and ``--clients`` it then translates sentences that come as
requests do, and tells how long each took. A process of its own, as a worker is, with the same
settings. ``serve`` as the first argument makes it a real worker with that engine instead: ``418m``
is a model that only the benchmarks know (``benchmarks/countdown``).
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from shutil import copyfile

from benchmarks.load import poisson
from benchmarks.servers import NotStarted
from benchmarks.workload import SMALL, Text, read_texts
from broker.options import parse
from broker.settings import BrokerSettings
from inference_worker.checkpoint import find
from inference_worker.draft import LanguageModel
from inference_worker.engine.protocol import Engine, Sentence
from inference_worker.hang import Watchdog
from inference_worker.loading import load
from inference_worker.segments import split
from inference_worker.serve import serve
from inference_worker.settings import WorkerSettings
from inference_worker.tokens import PIECES_FILE, TOKENIZER_FILE, VOCABULARY_FILE, Vocabulary
from inference_worker.warmth import warm_up

MODELS = ("small", "418m")
COUNTDOWN = Path.home() / ".cache" / "dragoman" / "benchmarks" / "countdown-418m"
LEAST_OUTPUT = 3  # language, a token, ``</s>``
MOST_RECORDS = 100_000
MOST_TEXTS = 1_000


class CountdownVocabulary(Vocabulary):
    """The bundled pieces, and languages that stand for lengths: the model counts down from the
    token that is forced first, so the n-th code of the alphabet asks for ``LEAST_OUTPUT`` + n
    tokens."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._lengths = {code: LEAST_OUTPUT + at for at, code in enumerate(self.languages)}

    def language(self, code: str) -> int:
        return self.end + self._lengths[code] - 1

    def asking_for(self, tokens: int) -> str:
        """The code whose translations have so many tokens, or the nearest number there is."""
        at = min(max(0, tokens - LEAST_OUTPUT), len(self.languages) - 1)
        return self.languages[at]


def folder_of(model: str) -> Path:
    """The checkpoint's directory, made first if it is the countdown's."""
    if model == "small":
        return SMALL
    from benchmarks.countdown import Size, write_countdown  # torch takes seconds

    write_countdown(COUNTDOWN, Size())
    for name in (VOCABULARY_FILE, PIECES_FILE, TOKENIZER_FILE):
        copyfile(SMALL / name, COUNTDOWN / name)
    return COUNTDOWN


def vocabulary_of(model: str) -> Vocabulary:
    folder = folder_of(model)
    return Vocabulary(folder) if model == "small" else CountdownVocabulary(folder)


def named(model: str) -> str:
    """What the tiers are told to serve: ``small``, or a directory."""
    return model if model == "small" else str(folder_of(model))


def opened(
    model: str, settings: WorkerSettings, watchdog: Watchdog
) -> tuple[LanguageModel, Engine]:
    """What a worker with these settings computes with."""
    checkpoint = find(named(model), Path(settings.cache_dir).expanduser())
    language_model, engine = load(checkpoint, settings, watchdog)
    return replace(language_model, vocabulary=vocabulary_of(model)), engine


def texts(vocabulary: Vocabulary, count: int) -> list[Text]:
    """Texts of one sentence each, in the order in which they are sent; none comes twice before all
    have come once."""
    found = read_texts()
    if isinstance(vocabulary, CountdownVocabulary):
        found = [planned(text, vocabulary) for text in found]
    limit = WorkerSettings.max_source_tokens
    single = {
        text.source: text
        for text in found
        if split(text.source, text.source_language, vocabulary.count, limit).sentences
        == [text.source]
    }
    return list(islice(cycle(single.values()), count))


def planned(text: Text, vocabulary: CountdownVocabulary) -> Text:
    """The text with a target language that makes the countdown model answer at the length of the
    reference translation."""
    target = vocabulary.asking_for(vocabulary.count(text.target))
    return replace(text, target_language=target, source_language="en" if target != "en" else "fr")


def sentences(texts: Iterable[Text], vocabulary: Vocabulary) -> list[Sentence]:
    return [
        Sentence(
            key,
            vocabulary.encode(text.source, text.source_language).ids,
            vocabulary.language(text.target_language),
        )
        for key, text in enumerate(texts)
    ]


@dataclass(frozen=True)
class Run:
    """What the engine alone did with sentences that were all there from the start."""

    records: int
    seconds: float
    cpu_s: float
    engine: str

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds


def saturated(engine: Engine, waiting: Sequence[Sentence]) -> Run:
    """Translates everything, the engine as full as it lets itself be."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    given = ended = 0
    while ended < len(waiting):
        fits = waiting[given : given + engine.free]
        engine.admit(fits)
        given += len(fits)
        ended += len(engine.step())
    seconds = time.perf_counter() - began_s
    return Run(len(waiting), seconds, time.process_time() - cpu_s, engine.name)


def arriving(engine: Engine, sentences: Sequence[Sentence], due_s: Sequence[float]) -> list[float]:
    """How long each sentence took from when it was due until its step ended, in seconds."""
    began_s = time.perf_counter()
    due = dict(zip((sentence.key for sentence in sentences), due_s, strict=True))
    took_s: dict[int, float] = {}
    given = 0
    while len(took_s) < len(sentences):
        now_s = time.perf_counter() - began_s
        come = bisect_right(due_s, now_s)
        fits = sentences[given : min(come, given + engine.free)]
        if fits:
            engine.admit(fits)
            given += len(fits)
        if given == len(took_s):
            time.sleep(max(0.0, due_s[given] - now_s))
            continue
        finished = engine.step()
        now_s = time.perf_counter() - began_s
        took_s.update((one.key, now_s - due[one.key]) for one in finished)
    return [took_s[sentence.key] for sentence in sentences]


@dataclass(frozen=True)
class Attended:
    """What became of the sentences of clients who wait for one before they ask for the next: how
    long each took, and when it ended after the beginning, in seconds."""

    took_s: list[float]
    ended_s: list[float]


def attended(
    engine: Engine, sentences: Sequence[Sentence], clients: int, seconds: float
) -> Attended:
    """So many clients ask for so long; what is inside then is translated to its end."""
    began_s = time.perf_counter()
    asked_s: dict[int, float] = {}
    found = Attended([], [])
    waiting = (replace(one, key=key) for key, one in enumerate(cycle(sentences)))
    while (now_s := time.perf_counter()) < began_s + seconds or asked_s:
        if now_s < began_s + seconds:
            fits = list(islice(waiting, min(engine.free, clients - len(asked_s))))
            engine.admit(fits)
            asked_s.update((one.key, now_s) for one in fits)
        finished = engine.step()
        now_s = time.perf_counter()
        found.took_s.extend(now_s - asked_s.pop(one.key) for one in finished)
        found.ended_s.extend([now_s - began_s] * len(finished))
    return found


@dataclass(frozen=True)
class Report:
    """What the process prints. Times are those of single sentences, in seconds."""

    saturated: Run
    rates: list[list[float]]  # for each of --rates
    clients: list[Attended]  # for each of --clients


def alone(model: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Report:
    """Measures the bare engine in a process of its own. Raises NotStarted with what it said."""
    argv = [sys.executable, "-m", "benchmarks.bare", "--model", model, *arguments]
    found = subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True)
    if found.returncode:
        raise NotStarted(f"{' '.join(argv)} failed:\n{found.stderr[-2000:]}")
    document = json.loads(found.stdout)
    clients = [Attended(**one) for one in document["clients"]]
    return Report(Run(**document["saturated"]), document["rates"], clients)


def measured(options: argparse.Namespace, engine: Engine, vocabulary: Vocabulary) -> Report:
    known = texts(vocabulary, MOST_TEXTS)
    waiting = sentences(islice(cycle(known), options.records), vocabulary)
    full = saturated(engine, waiting)
    rates = []
    for rate in options.rates:
        due_s = poisson(rate, options.seconds, options.seed)
        come = sentences(islice(cycle(known), len(due_s)), vocabulary)
        rates.append(arriving(engine, come, due_s))
    few = sentences(known, vocabulary)
    clients = [attended(engine, few, count, options.seconds) for count in options.clients]
    return Report(full, rates, clients)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.bare", description=__doc__)
    parser.add_argument("role", choices=("measure", "serve"), nargs="?", default="measure")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--records", type=int, default=1_000)
    parser.add_argument("--rates", type=float, nargs="*", default=[], help="sentences/s that come")
    parser.add_argument("--seed", type=int, default=0, help="of the times at which they come")
    parser.add_argument("--clients", type=int, nargs="*", default=[], help="that wait for answers")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of them")
    options, rest = parser.parse_known_args(arguments)
    broker, settings = parse(
        [BrokerSettings, WorkerSettings],
        rest,
        os.environ,
        program="benchmarks.bare",
        description="The engine of a worker, alone or in a worker.",
    )
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    watchdog = Watchdog(settings.hang_s)
    model, engine = opened(options.model, settings, watchdog)
    if options.role == "serve":
        serve(broker, settings, model, engine, watchdog)
        return 0
    if not 1 <= options.records <= MOST_RECORDS:
        parser.error(f"--records must be between 1 and {MOST_RECORDS}")
    vocabulary = model.vocabulary
    warm_up(engine, vocabulary)
    print(json.dumps(asdict(measured(options, engine, vocabulary))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
