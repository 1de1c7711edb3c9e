"""Small random checkpoints, the bundled one, and transformers' answers, each made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from transformers import M2M100ForConditionalGeneration

from benchmarks.exact import SHAPES, load_model, write_random_checkpoint
from inference_worker.engine.continuous.checkpoint import Checkpoint, load_checkpoint
from inference_worker.engine.continuous.engine import ContinuousEngine
from inference_worker.engine.continuous.graphs import Capture
from inference_worker.engine.continuous.rules import Rules

MakeEngine = Callable[..., ContinuousEngine]


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def directories(
    small: Path, tmp_path_factory: pytest.TempPathFactory, _quiet: None
) -> dict[str, Path]:
    """Checkpoint directories by name: ``small`` and the random shapes."""
    found = {"small": small}
    for shape in SHAPES:
        found[shape.name] = tmp_path_factory.mktemp(shape.name)
        write_random_checkpoint(shape, found[shape.name])
    return found


@pytest.fixture(scope="session")
def checkpoint(directories: dict[str, Path]) -> Callable[[str], Checkpoint]:
    return cache(lambda name: load_checkpoint(directories[name]))


@pytest.fixture(scope="session")
def model(directories: dict[str, Path]) -> Callable[[str], M2M100ForConditionalGeneration]:
    return cache(lambda name: load_model(directories[name]))


@pytest.fixture
def make_engine(checkpoint: Callable[[str], Checkpoint]) -> MakeEngine:
    """``make_engine(name, rules, width=…, capture=…)``"""

    def make(
        name: str, rules: Rules, width: int = 4, capture: Capture | None = None
    ) -> ContinuousEngine:
        return ContinuousEngine(checkpoint(name), rules, width=width, capture=capture)

    return make
