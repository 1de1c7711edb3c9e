"""The ``dragoman-worker`` command: serves a checkpoint, or with ``pull NAME`` fetches one."""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from broker.errors import BrokerError
from broker.options import option, parse
from broker.settings import BrokerSettings
from inference_worker.checkpoint import CheckpointError, find, limits
from inference_worker.device import DeviceError, compute_type_named, device_named
from inference_worker.draft import LanguageModel
from inference_worker.engine.generate import MAX_LENGTH, Decoding, GenerateEngine
from inference_worker.hang import Watchdog
from inference_worker.pull import pull
from inference_worker.serve import serve
from inference_worker.settings import CACHE_DIR, WorkerSettings
from inference_worker.tokens import Vocabulary, VocabularyError
from inference_worker.worker import EngineBroken

PROGRAM = "dragoman-worker"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True)
class PullSettings:
    """Settings of ``dragoman-worker pull``."""

    cache_dir: str = option(CACHE_DIR, "Where pulled checkpoints are kept.")
    revision: str = option("", "Branch, tag or commit; without it, the hub's default.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status tells how it went: 0, 1 for an error, 2 for bad usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    # Else transformers looks on the hub for a converted copy of every pickled checkpoint.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    transformers.utils.logging.disable_progress_bar()
    try:
        if arguments[:1] == ["pull"]:
            return _pull(arguments[1:])
        _serve(arguments)
    except (BrokerError, CheckpointError, DeviceError, VocabularyError, EngineBroken) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    return 0


def _pull(arguments: list[str]) -> int:
    description = "Fetches a checkpoint from the hub, converts it and pins its revision."
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else ""
    (settings,) = parse(
        [PullSettings],
        arguments,
        os.environ,
        program=f"{PROGRAM} pull NAME",
        description=description,
    )
    if not name:
        print(f"{PROGRAM} pull: error: name a checkpoint, such as facebook/m2m100_418M")
        return 2
    checkpoint = pull(name, settings.revision, Path(settings.cache_dir).expanduser())
    print(f"{checkpoint.name} at {checkpoint.revision} in {checkpoint.folder}")
    return 0


def _serve(arguments: list[str]) -> None:
    broker_settings, settings = parse(
        [BrokerSettings, WorkerSettings],
        arguments,
        os.environ,
        program=PROGRAM,
        description="Translates what the API accepts. `dragoman-worker pull NAME` fetches a model.",
    )
    checkpoint = find(settings.model, Path(settings.cache_dir).expanduser())
    device = device_named(settings.device)
    torch.set_num_threads(settings.threads_here())
    vocabulary = Vocabulary(checkpoint.folder)
    asked = limits(checkpoint.folder)
    decoding = Decoding(
        settings.beams,
        max_length=int(asked.get("max_length", MAX_LENGTH)),
        length_penalty=asked.get("length_penalty", 1.0),
    )
    watchdog = Watchdog(settings.hang_s)
    engine = GenerateEngine(
        checkpoint.folder,
        device=device,
        compute_type=compute_type_named(settings.compute_type, device),
        decoding=decoding,
        batch_tokens=settings.batch_tokens_on(device),
        slots=settings.slots_on(device),
        pulse=watchdog.pulse,
    )
    model = LanguageModel(
        name=checkpoint.name,
        revision=checkpoint.revision,
        vocabulary=vocabulary,
        max_source_tokens=settings.max_source_tokens,
        max_length=decoding.max_length,
    )
    serve(broker_settings, settings, model, engine, watchdog)


if __name__ == "__main__":
    sys.exit(main())
