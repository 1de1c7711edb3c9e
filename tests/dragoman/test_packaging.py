"""What pyproject.toml lists by hand is what there is."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = (
    "api",
    "broker",
    "document_formats",
    "document_worker",
    "dragoman",
    "inference_worker",
)
DATA_ONLY = {"dragoman_models"}


def test_every_package_is_installed() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(SETUPTOOLS["packages"]) == found | DATA_ONLY


def test_every_file_that_is_not_code_is_installed() -> None:
    for folder in FOLDERS:
        listed = {
            path
            for pattern in SETUPTOOLS["package-data"][folder]
            for path in (ROOT / folder).glob(pattern)
        }
        found = {
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != "Dockerfile"
        }
        assert found - listed == set()


def test_the_command_line_tools() -> None:
    tiers = {"dragoman-api", "dragoman-documents", "dragoman-worker"}
    assert PROJECT["project"]["scripts"].keys() == {"dragoman"} | tiers
