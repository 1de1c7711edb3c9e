"""The bundled checkpoint, loaded once for all tests of the model tier."""

from pathlib import Path

import pytest
import torch

from inference_worker.draft import LanguageModel
from inference_worker.tokens import Vocabulary
from tests.inference_worker.stage import Stage

SMALL = Path(__file__).parents[2] / "models" / "small"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small() -> Path:
    return SMALL


@pytest.fixture(scope="session")
def vocabulary(small: Path) -> Vocabulary:
    return Vocabulary(small)


@pytest.fixture
def model(vocabulary: Vocabulary) -> LanguageModel:
    return LanguageModel("small", "r1", vocabulary, max_source_tokens=64, max_length=200)


@pytest.fixture
def stage(model: LanguageModel) -> Stage:
    return Stage(model)
