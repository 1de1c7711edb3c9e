"""The Dockerfiles: what hadolint takes, and what every image promises."""

import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.deployment import settings, tools
from tests.deployment.images import TIERS, pinned

PROJECT = tomllib.loads((tools.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = {
    "api": {"api"},
    "inference_worker": {"cpu", "worker"},  # DEVICE=cpu, DEVICE=cuda
    "document_worker": {"documents"},
}


@pytest.fixture(params=TIERS)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    folder: str = request.param
    return tools.ROOT / folder / "Dockerfile"


def lines(dockerfile: Path, instruction: str) -> list[str]:
    """The arguments of an instruction, each time it is used; continued lines joined."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{instruction} +(.+)$", text, re.MULTILINE)


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    tools.run(tools.need("hadolint"), str(dockerfile))


def test_the_base_is_the_builders_choice(dockerfile: Path) -> None:
    assert "BASE=python:3.11-slim-bookworm" in lines(dockerfile, "ARG")
    stages = lines(dockerfile, "FROM")
    assert stages[0] == "${BUILD_BASE} AS build"
    assert len(stages) >= 2
    assert all(stage.startswith("${") or "device-" in stage for stage in stages)


def test_it_runs_as_a_number_that_is_not_root(dockerfile: Path) -> None:
    assert lines(dockerfile, "USER") == ["10001:10001"]


def test_it_imports_nothing_from_the_working_directory(dockerfile: Path) -> None:
    (environment,) = (line for line in lines(dockerfile, "ENV") if "PYTHONSAFEPATH" in line)
    assert "PYTHONSAFEPATH=1" in environment.split()
    ours = {pair.split("=")[0] for line in lines(dockerfile, "ENV") for pair in line.split()}
    assert {name for name in ours if name.startswith("DRAGOMAN_")} <= settings.VARIABLES
    assert "NVIDIA_VISIBLE_DEVICES" not in dockerfile.read_text(encoding="utf-8")


def test_commands_are_lists_and_exist(dockerfile: Path) -> None:
    (entry,) = lines(dockerfile, "ENTRYPOINT")
    (program,) = json.loads(entry)
    assert program in PROJECT["project"]["scripts"]
    (check,) = lines(dockerfile, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"] or find_spec(command[2])


def test_the_wheel_is_installed_with_its_tier_alone(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    used = set(re.findall(r"\['optional-dependencies'\]\['(\w+)'\]", text))
    used |= set(re.findall(r"requirements/(\w+)\.lock", text))
    assert used == EXTRAS[dockerfile.parent.name]
    assert used <= set(PROJECT["project"]["optional-dependencies"])
    assert "pip install --no-deps /tmp/dist/dragoman-*.whl" in text


def test_tiers_without_a_model_are_built_alike() -> None:
    """Two files, each of which can be read alone: as two targets of one, an engine without BuildKit
    would build the one for the sake of the other."""
    built = {}
    for folder, name in TIERS.items():
        text = (tools.ROOT / folder / "Dockerfile").read_text(encoding="utf-8")
        stage = text[text.index("# BASE:") : text.index("LABEL")]
        (lock,) = EXTRAS[folder] - {"worker"}
        built[name] = stage.replace(f"{lock}.lock", "LOCK")
        without = "rm -r models/small" in stage
        assert without is (name != "worker"), folder
    assert built["api"] == built["documents"]


def test_only_a_gpu_worker_installs_torch() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    with_torch = {name for name, needs in extras.items() if any("torch" in need for need in needs)}
    assert not {"api", "cpu", "documents"} & with_torch


def test_the_engine_is_sent_every_package() -> None:
    sent = (tools.ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    named = PROJECT["tool"]["setuptools"]["package-dir"]
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        assert f"!{named.get(package, package.split('.')[0])}" in sent, package


def test_the_private_engines_wheels_are_the_locked_ones() -> None:
    lock = (
        "one==1.0 \\\n    --hash=sha256:11\n"
        "two==2.0 ; python_full_version < '3.11.3' \\\n    --hash=sha256:22\n"
        "three==3.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:33\n"
    )
    assert pinned(lock) == (
        "one==1.0 \\\n    --hash=sha256:11\ntwo==2.0 \\\n    --hash=sha256:22\n"
    )
