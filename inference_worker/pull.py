"""Fetching a checkpoint from a hub into the cache: ``dragoman-worker pull NAME``.

A revision is fetched beside its place and renamed into it whole, under a lock; then the name is
pinned to it. Pickled weights become safetensors here, once, and are read with ``weights_only``:
nothing from a hub is ever unpickled freely.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from inference_worker.checkpoint import (
    CONFIG_FILE,
    GENERATION_FILE,
    PICKLES,
    PIN_FILE,
    SHARDS_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    CheckpointError,
    find,
    home,
    is_hub_name,
    weights_of,
)
from inference_worker.tokens import LANGUAGES_FILE, PIECES_FILE, TOKENIZER_FILE, VOCABULARY_FILE

log = logging.getLogger(__name__)

_SMALL_FILES = (
    CONFIG_FILE,
    GENERATION_FILE,
    VOCABULARY_FILE,
    PIECES_FILE,
    TOKENIZER_FILE,
    LANGUAGES_FILE,
)
_SAFETENSORS = ("model*.safetensors", SHARDS_FILE)


def pull(name: str, revision: str, cache: Path) -> Checkpoint:
    """Fetches, converts and pins a hub checkpoint; of a directory, converts the weights in place.

    ``revision`` is a branch, tag or commit, "" for the hub's default. What is there already is not
    fetched again. Raises CheckpointError.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        with _lock(folder / ".dragoman.lock"):
            _convert(folder)
        return find(name, cache)
    if not is_hub_name(name):
        raise CheckpointError(f"{name} is neither a directory nor a hub name like owner/model")
    place = home(name, cache)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"--cache-dir {cache} cannot be used: {error.strerror}") from error
    with _lock(place / ".lock"):
        commit = _fetch(name, revision, place)
        _write_whole(place / PIN_FILE, commit + "\n")
    return find(name, cache)


def _fetch(name: str, revision: str, place: Path) -> str:
    """Makes ``place/<commit>`` hold the revision; returns the commit."""
    try:
        info = HfApi().model_info(name, revision=revision or None)
        commit = str(info.sha)
        if (place / commit).is_dir():
            return commit
        present = [sibling.rfilename for sibling in info.siblings or ()]
        safe = any(file in (WEIGHTS_FILE, SHARDS_FILE) for file in present)
        partial = place / f"{commit}.partial"
        log.info("fetching %s at %s", name, commit)
        snapshot_download(
            name,
            revision=commit,
            local_dir=partial,
            allow_patterns=[*_SMALL_FILES, *(_SAFETENSORS if safe else (PICKLES, f"{PICKLES}.*"))],
        )
    except RepositoryNotFoundError:
        raise CheckpointError(f"the hub has no checkpoint named {name}, or it is private") from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{name} has no revision {revision}") from None
    except GatedRepoError:
        raise CheckpointError(f"{name} asks for an agreement: accept it on its page") from None
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise CheckpointError(f"{name} cannot be fetched: {error}") from error
    _convert(partial)
    for pickled in partial.glob("pytorch_model*"):
        pickled.unlink()
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    partial.replace(place / commit)
    return commit


def _convert(folder: Path) -> None:
    """Writes ``model.safetensors`` from pickled weights, unless it is there."""
    if weights_of(folder):
        return
    pickles = sorted(folder.glob(PICKLES))
    if not pickles:
        raise CheckpointError(f"{folder.name} has no weights that Dragoman can read")
    if find_spec("torch") is None:
        raise CheckpointError(
            f"{folder.name} has its weights only as pickle, and converting them needs PyTorch:"
            " pip install 'dragoman[worker]'"
        )
    from inference_worker.conversion import convert  # torch, which only pickles need

    log.info("converting the weights to safetensors, once")
    partial = folder / f"{WEIGHTS_FILE}.partial"
    convert(pickles, partial)
    partial.replace(folder / WEIGHTS_FILE)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="ascii")
    partial.replace(path)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Waits until no other process pulls the same checkpoint."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CheckpointError(f"cannot write next to {path.parent}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
