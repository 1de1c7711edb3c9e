"""Tests of ``inference_worker.pull`` and ``checkpoint`` against a hub on the loopback interface."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file

from inference_worker.checkpoint import CheckpointError, bundled, find, pinned
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.generate import GenerateEngine
from inference_worker.pull import pull
from tests.inference_worker.hub import COMMIT, Hub, serving

NAME = "facebook/m2m100_small"
LEFT_OUT = "README.md"


def as_pickle(folder: Path, weights: dict[str, Any]) -> None:
    """Rewrites a checkpoint as old repositories have it: pickled, embeddings tied by aliasing."""
    shared = weights["model.shared.weight"]
    aliases = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    tied = dict.fromkeys((*aliases, "lm_head.weight"), shared)
    torch.save(tied | weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.fixture
def repository(small: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(small, tmp_path / "repository"))
    (folder / LEFT_OUT).write_text("not needed to translate")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub(NAME, repository)) as served:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield served


def test_a_pulled_name_is_pinned_and_found(hub: Hub, cache: Path) -> None:
    with pytest.raises(CheckpointError, match=f"run `dragoman models pull {NAME}`"):
        find(NAME, cache)
    pulled = pull(NAME, "", cache)
    assert pulled == find(NAME, cache)
    assert (pulled.name, pulled.revision) == (NAME, COMMIT)
    assert pinned(NAME, cache) == COMMIT
    assert (pulled.folder / "model.safetensors").is_file()
    assert LEFT_OUT not in hub.fetched
    assert not list(cache.rglob("*.partial"))


def test_what_is_there_is_not_fetched_again(hub: Hub, cache: Path) -> None:
    pull(NAME, "", cache)
    fetched = list(hub.fetched)
    pull(NAME, COMMIT, cache)
    assert hub.fetched == fetched


def test_pickled_weights_are_converted_once(
    hub: Hub, repository: Path, cache: Path, small: Path
) -> None:
    weights = load_file(small / "model.safetensors")
    as_pickle(repository, weights)
    folder = pull(NAME, "", cache).folder
    assert not list(folder.glob("*.bin"))
    assert "pytorch_model.bin" in hub.fetched
    converted = load_file(folder / "model.safetensors")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weights[name]) for name in weights)
    GenerateEngine(
        folder, Rules(beams=1), device="cpu", compute_type="float32", batch_tokens=8, slots=1
    )


def test_safetensors_are_preferred(hub: Hub, repository: Path, cache: Path) -> None:
    (repository / "pytorch_model.bin").write_bytes(b"never read")
    pull(NAME, "", cache)
    assert "pytorch_model.bin" not in hub.fetched


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["DRAGOMAN_TEST_TRAP"],)


def test_nothing_is_unpickled_freely(
    hub: Hub, repository: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("DRAGOMAN_TEST_TRAP", str(trap))
    (repository / "model.safetensors").unlink()
    torch.save({"model.shared.weight": Malicious()}, repository / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors, and was not loaded"):
        pull(NAME, "", cache)
    assert not trap.exists()
    assert pinned(NAME, cache) is None


def test_a_failed_pull_leaves_the_pin_alone(hub: Hub, repository: Path, cache: Path) -> None:
    pull(NAME, "", cache)
    with pytest.raises(CheckpointError, match="has no revision v9"):
        pull(NAME, "v9", cache)
    assert find(NAME, cache).revision == COMMIT


def test_an_unknown_name_is_a_readable_error(hub: Hub, cache: Path) -> None:
    with pytest.raises(CheckpointError, match="the hub has no checkpoint named some/model"):
        pull("some/model", "", cache)
    with pytest.raises(CheckpointError, match="neither a directory nor a hub name"):
        pull("../escape", "", cache)


def test_a_cache_that_cannot_be_written_is_a_readable_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        CheckpointError, match=r"--cache-dir .*file cannot be used: Not a directory"
    ):
        pull(NAME, "", tmp_path / "file")


def test_two_pulls_at_once_fetch_once(hub: Hub, cache: Path) -> None:
    revisions: list[str] = []
    threads = [
        threading.Thread(target=lambda: revisions.append(pull(NAME, "", cache).revision))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert revisions == [COMMIT, COMMIT]
    assert hub.fetched.count("model.safetensors") == 1


def test_a_directory_is_converted_in_place(repository: Path, cache: Path, small: Path) -> None:
    as_pickle(repository, load_file(small / "model.safetensors"))
    with pytest.raises(CheckpointError, match=f"run `dragoman models pull {repository}`"):
        find(str(repository), cache)
    assert pull(str(repository), "", cache).folder == repository
    assert find(str(repository), cache).name == "repository"


def test_the_command_says_what_it_pulled(hub: Hub, cache: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "inference_worker", "pull", NAME, "--cache-dir", str(cache)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert f"{NAME} at {COMMIT} in {cache}" in result.stdout
    assert find(NAME, cache).revision == COMMIT


def test_the_bundled_checkpoint_is_called_small(small: Path, cache: Path) -> None:
    checkpoint = find("small", cache)
    assert bundled().resolve() == small.resolve()
    assert checkpoint.name == "small"
    assert len(checkpoint.revision) == 12
    assert checkpoint.revision == find(str(small), cache).revision


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config.json": None}, "has no config.json"),
        ({"config.json": "{"}, "is not JSON"),
        ({"config.json": '{"model_type": "t5"}'}, "not an M2M100 checkpoint but t5"),
        ({"vocab.json": None}, "has no vocab.json"),
        ({"model.safetensors": None}, "has no model.safetensors"),
        (
            {
                "model.safetensors": None,
                "model.safetensors.index.json": '{"weight_map": {"a": "b"}}',
            },
            "has no model.safetensors",
        ),
    ],
)
def test_incomplete_directories_are_readable_errors(
    repository: Path, cache: Path, change: dict[str, str | None], message: str
) -> None:
    for name, content in change.items():
        (repository / name).unlink(missing_ok=True)
        if content is not None:
            (repository / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        find(str(repository), cache)


def test_sharded_safetensors_are_found(repository: Path, cache: Path) -> None:
    (repository / "model.safetensors").rename(repository / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"model.shared.weight": "model-00001-of-00001.safetensors"}}
    (repository / "model.safetensors.index.json").write_text(json.dumps(index))
    assert find(str(repository), cache).folder == repository


@pytest.mark.parametrize("name", ["/no/such/directory", "./nothing", "a/b/c", "a..b/c"])
def test_paths_that_are_not_there_are_readable_errors(name: str, cache: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        find(name, cache)
