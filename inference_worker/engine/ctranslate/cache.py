"""Built CTranslate2 models, kept in a local directory and built once whoever asks first."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import ctranslate2

from inference_worker.engine.continuous.architecture import weight_files

LAYOUT = 1  # raised when what model.build writes changes


def cached_model(
    checkpoint: Path,
    cache: Path,
    quantization: str | None,
    build: Callable[[Path, Path, str | None], None],
) -> Path:
    """The directory of the built model; builds it if it is not there.

    Several processes may ask at once: one builds under a lock, the others wait for it. A directory
    appears under its final name only when it is whole, so a killed build leaves nothing half done.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / model_key(checkpoint, quantization)
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            room = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
            try:
                build(checkpoint, room, quantization)
                os.rename(room, target)
            finally:
                shutil.rmtree(room, ignore_errors=True)
    return target


def model_key(checkpoint: Path, quantization: str | None) -> str:
    """A name that changes when the checkpoint, the number format or the builder does."""
    seen = [str(LAYOUT), ctranslate2.__version__, str(quantization)]
    for file in (checkpoint / "config.json", *weight_files(checkpoint)):
        status = file.stat()
        seen.append(f"{file.resolve()}:{status.st_size}:{status.st_mtime_ns}")
    digest = hashlib.sha256("\n".join(seen).encode()).hexdigest()
    return f"{checkpoint.name}-{quantization or 'float32'}-{digest[:16]}"
