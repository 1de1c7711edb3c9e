"""What each image runs imports nothing but what its lock file installs, in whatever branch."""

import json
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest
from packaging.utils import canonicalize_name

from tests.deployment import tools
from tests.deployment.images import TIERS
from tests.deployment.test_images import PROJECT, lines
from tests.security.licences import locked

OURS = ("api", "broker", "document_formats", "document_worker", "dragoman", "inference_worker")
# DEVICE=cuda installs these, and the engines that need them are chosen only where they are.
OF_CUDA = {"torch", "transformers"}
# `dragoman broker init` and `dragoman keys` are run in the API's image.
BESIDE = {"api": ["dragoman"]}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*OURS, include_external_packages=True)


def entries(dockerfile: Path, *, beside: bool = True) -> set[str]:
    """The modules that an image starts, with what it is used for ``beside`` its tier or without."""
    programs = [*json.loads(lines(dockerfile, "ENTRYPOINT")[0])]
    programs += BESIDE.get(dockerfile.parent.name, []) if beside else []
    found = {PROJECT["project"]["scripts"][program].partition(":")[0] for program in programs}
    return found | set(re.findall(r'"-m", "([\w.]+)"', lines(dockerfile, "HEALTHCHECK")[0]))


def reached(graph: grimp.ImportGraph, modules: set[str]) -> set[str]:
    """All that these modules import, and what that imports."""
    seen: set[str] = set()
    ahead = set(modules)
    while ahead:
        module = ahead.pop()
        seen.add(module)
        ahead |= graph.find_modules_directly_imported_by(module) - seen
    return seen


@pytest.mark.parametrize("folder", TIERS)
def test_what_is_imported_is_locked(folder: str, graph: grimp.ImportGraph) -> None:
    dockerfile = tools.ROOT / folder / "Dockerfile"
    packages = {module.partition(".")[0] for module in reached(graph, entries(dockerfile))}
    assert len(packages & set(OURS)) > 1
    owners = packages_distributions()
    needed = {
        canonicalize_name(owner)
        for package in packages - set(OURS) - sys.stdlib_module_names
        for owner in owners[package]
    }
    root = dockerfile.parents[1]
    (lock,) = (
        root / path for path in re.findall(r"requirements/\w+\.lock", dockerfile.read_text())
    )
    allowed = OF_CUDA if lock.stem == "cpu" else set()
    assert needed - set(locked(lock)) == allowed
