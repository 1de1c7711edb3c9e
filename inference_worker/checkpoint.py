"""Finding checkpoints: the bundled one, a directory, or a pulled hub name at its pinned revision.

The cache holds ``models/<name>/<revision>/`` with the files of a revision, weights as safetensors,
and ``models/<name>/pinned`` with the revision that the name stands for.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from broker.keys import model_name
from inference_worker.tokens import PIECES_FILE, VOCABULARY_FILE

BUNDLED = "small"
CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
WEIGHTS_FILE = "model.safetensors"
SHARDS_FILE = "model.safetensors.index.json"
PICKLES = "pytorch_model*.bin"
PIN_FILE = "pinned"
_HUB_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?")
_REVISION_DIGITS = 12


class CheckpointError(Exception):
    """A checkpoint cannot be found or used; the message is for the person who named it."""


@dataclass(frozen=True)
class Checkpoint:
    """A directory with everything a model needs."""

    name: str  # of its queues
    folder: Path
    revision: str


def find(name: str, cache: Path) -> Checkpoint:
    """The checkpoint a person means by ``name``. Raises CheckpointError with the remedy."""
    if name == BUNDLED:
        return _checked(BUNDLED, bundled())
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(model_name(str(folder)), folder)
    if not is_hub_name(name):
        raise CheckpointError(f"no checkpoint at {name}: no such directory")
    revision = pinned(name, cache)
    if revision is None:
        raise CheckpointError(
            f"no checkpoint named {name}: neither a directory here nor in the cache {cache};"
            f" run `dragoman models pull {name}`"
        )
    return _checked(name, home(name, cache) / revision, revision)


def is_hub_name(name: str) -> bool:
    """Whether a hub can have a repository of that name."""
    return bool(_HUB_NAME.fullmatch(name)) and ".." not in name and "--" not in name


def home(name: str, cache: Path) -> Path:
    """Where the revisions of a hub name are kept."""
    return cache / "models" / name


def pinned(name: str, cache: Path) -> str | None:
    """The revision a hub name stands for, or None if it was never pulled."""
    try:
        return (home(name, cache) / PIN_FILE).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def bundled() -> Path:
    """The checkpoint that ships with the project: installed, or in the checkout around us."""
    try:
        installed = Path(str(files("dragoman_models") / BUNDLED))
    except (ModuleNotFoundError, NotADirectoryError, TypeError):  # not, or editably, installed
        installed = Path()
    if (installed / CONFIG_FILE).is_file():
        return installed
    return Path(__file__).resolve().parents[1] / "models" / BUNDLED


def _checked(name: str, folder: Path, revision: str = "") -> Checkpoint:
    try:
        config = json.loads((folder / CONFIG_FILE).read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no checkpoint: it has no {CONFIG_FILE}") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} is not JSON: {error}") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "m2m_100":
        raise CheckpointError(f"{folder} is not an M2M100 checkpoint but {kind or 'unknown'}")
    for needed in (VOCABULARY_FILE, PIECES_FILE):
        if not (folder / needed).is_file():
            raise CheckpointError(f"{folder} is incomplete: it has no {needed}")
    weights = weights_of(folder)
    if not weights:
        if any(folder.glob(PICKLES)):
            raise CheckpointError(
                f"{folder} has its weights only as pickle: run `dragoman models pull {folder}`"
                " to convert them once"
            )
        raise CheckpointError(f"{folder} is incomplete: it has no {WEIGHTS_FILE}")
    return Checkpoint(name, folder, revision or _digest(weights))


def weights_of(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint; none if one of them is missing."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    try:
        shards = json.loads((folder / SHARDS_FILE).read_bytes())["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError):
        return []
    paths = [folder / shard for shard in sorted(set(shards))]
    return paths if all(path.is_file() for path in paths) else []


def _digest(weights: list[Path]) -> str:
    """Names the content of weights that carry no revision of their own."""
    digest = hashlib.sha256()
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_REVISION_DIGITS]


def limits(folder: Path) -> dict[str, float]:
    """Length limit and penalty of the checkpoint's generation config, where it names them."""
    try:
        config = json.loads((folder / GENERATION_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {
        name: value
        for name, value in config.items()
        if name in ("max_length", "length_penalty") and isinstance(value, int | float)
    }
