"""From a checkpoint and settings to a model and its engine. Each engine's libraries take seconds to
import, so only the chosen one's are, and only once nothing can be refused without them."""

import logging
import os
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError

from inference_worker.checkpoint import Checkpoint, CheckpointError
from inference_worker.choice import Choice, choose, this_machine
from inference_worker.draft import LanguageModel
from inference_worker.engine.continuous.rules import Rules, shipped_rules
from inference_worker.engine.protocol import Engine
from inference_worker.hang import Watchdog
from inference_worker.settings import SLOTS, SLOTS_CUDA, DeviceError, WorkerSettings
from inference_worker.tokens import Vocabulary

log = logging.getLogger(__name__)

# Room in a slot per source token that sentences are cut to: one that is tried again in other words
# may take more tokens than it was measured with. The least is more than our own sentences need.
SOURCE_ROOM, LEAST_SOURCE_ROOM_TOKENS = 2, 128

BUILT = "ctranslate2"  # folder of the cache for models in CTranslate2's own format

# Else transformers looks on the hub for a converted copy of pickled checkpoints.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"


def load(
    checkpoint: Checkpoint, settings: WorkerSettings, watchdog: Watchdog
) -> tuple[LanguageModel, Engine]:
    """Raises DeviceError, VocabularyError, or CheckpointError for weights that do not fit."""
    choice = choose(settings, this_machine())
    log.info(
        "engine %s on %s in %s: %s",
        *(choice.engine, choice.device, choice.compute_type, choice.reason),
    )
    try:
        rules = rules_of(checkpoint.folder, settings)
        engine = _OPEN[choice.engine](checkpoint.folder, rules, choice, settings, watchdog)
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.folder} lacks the weight {error}") from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint.folder} cannot be loaded: {error}") from error
    model = LanguageModel(
        name=checkpoint.name,
        revision=checkpoint.revision,
        vocabulary=Vocabulary(checkpoint.folder),
        max_source_tokens=settings.max_source_tokens,
        max_length=rules.max_length,
        recipe=f"{choice.engine} {choice.device} {choice.compute_type} {rules}"
        f" {settings.self_check}",
        self_check=settings.self_check,  # type: ignore[arg-type]
    )
    return model, engine


def rules_of(folder: Path, settings: WorkerSettings) -> Rules:
    """The checkpoint's length limit and penalty under our beams and bounds."""
    shipped = shipped_rules(folder, beams=settings.beams, early_stopping=True)
    return replace(
        shipped,
        length_bound=settings.length_bound,
        no_repeat_ngram=settings.no_repeat_ngram or shipped.no_repeat_ngram,
        hypotheses=settings.beams if settings.self_check == "retry" else 1,
    )


def _open_continuous(
    folder: Path, rules: Rules, choice: Choice, settings: WorkerSettings, watchdog: Watchdog
) -> Engine:
    import torch

    from inference_worker.engine.continuous.engine import MemoryBudgetTooSmall, open_engine
    from inference_worker.engine.continuous.linear import usable
    from inference_worker.engine.continuous.placement import memory_here_mib

    torch.set_num_threads(settings.threads_here())
    if not usable(choice.compute_type, choice.device):  # type: ignore[arg-type]
        raise DeviceError(
            f"--compute-type {choice.compute_type}: this {choice.device.upper()} or PyTorch cannot;"
            " use float32"
        )
    try:
        return open_engine(
            folder,
            rules,
            memory_mib=settings.memory_mib or memory_here_mib(choice.device),
            width=settings.slots or (SLOTS if choice.device == "cpu" else SLOTS_CUDA),
            compute_type=choice.compute_type,  # type: ignore[arg-type]
            device=choice.device,
            source_tokens=max(SOURCE_ROOM * settings.max_source_tokens, LEAST_SOURCE_ROOM_TOKENS),
        )
    except MemoryBudgetTooSmall as error:
        raise DeviceError(f"--memory-mib: {error}") from error


def _open_ctranslate(
    folder: Path, rules: Rules, choice: Choice, settings: WorkerSettings, watchdog: Watchdog
) -> Engine:
    from inference_worker.engine.ctranslate.engine import open_ctranslate

    return open_ctranslate(
        folder,
        rules,
        cache=Path(settings.cache_dir).expanduser() / BUILT,
        batch=settings.batch_on(choice.device),
        compute_type=choice.compute_type,
        device=choice.device,
        threads=settings.threads_here(),
    )


def _open_generate(
    folder: Path, rules: Rules, choice: Choice, settings: WorkerSettings, watchdog: Watchdog
) -> Engine:
    import torch
    import transformers

    from inference_worker.engine.generate import GenerateEngine

    torch.set_num_threads(settings.threads_here())
    transformers.utils.logging.disable_progress_bar()
    return GenerateEngine(
        folder,
        rules,
        device=choice.device,
        compute_type=choice.compute_type,
        batch_tokens=settings.batch_tokens_on(choice.device),
        slots=settings.slots_on(choice.device),
        pulse=watchdog.pulse,
    )


_OPEN = {
    "torch": _open_continuous,
    "ctranslate2": _open_ctranslate,
    "generate": _open_generate,
}
