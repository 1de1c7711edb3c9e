"""From a checkpoint and settings to a model and its engine. Importing this imports torch and
transformers, which takes seconds: whatever can be refused without them is refused before."""

import os

import torch
import transformers
from safetensors import SafetensorError

from inference_worker.checkpoint import Checkpoint, CheckpointError, limits
from inference_worker.device import compute_type_named, device_named
from inference_worker.draft import LanguageModel
from inference_worker.engine.generate import MAX_LENGTH, Decoding, GenerateEngine
from inference_worker.engine.protocol import Engine
from inference_worker.hang import Watchdog
from inference_worker.settings import WorkerSettings
from inference_worker.tokens import Vocabulary

# Else transformers looks on the hub for a converted copy of pickled checkpoints.
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
transformers.utils.logging.disable_progress_bar()


def load(
    checkpoint: Checkpoint, settings: WorkerSettings, watchdog: Watchdog
) -> tuple[LanguageModel, Engine]:
    """Raises DeviceError, VocabularyError, or CheckpointError for weights that do not fit."""
    device = device_named(settings.device)
    torch.set_num_threads(settings.threads_here())
    asked = limits(checkpoint.folder)
    decoding = Decoding(
        settings.beams,
        max_length=int(asked.get("max_length", MAX_LENGTH)),
        length_penalty=asked.get("length_penalty", 1.0),
    )
    model = LanguageModel(
        name=checkpoint.name,
        revision=checkpoint.revision,
        vocabulary=Vocabulary(checkpoint.folder),
        max_source_tokens=settings.max_source_tokens,
        max_length=decoding.max_length,
    )
    compute_type = compute_type_named(settings.compute_type, device)
    try:
        engine = GenerateEngine(
            checkpoint.folder,
            device=device,
            compute_type=compute_type,
            decoding=decoding,
            batch_tokens=settings.batch_tokens_on(device),
            slots=settings.slots_on(device),
            pulse=watchdog.pulse,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint.folder} cannot be loaded: {error}") from error
    return model, engine
