"""docs/configuration.md names every setting of every tier, with its default."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest

from api.settings import ApiSettings
from broker.document_settings import DocumentSettings
from broker.options import flag, shown, variable
from broker.settings import BrokerSettings
from broker.tenants import KeySettings
from document_worker.settings import DocumentWorkerSettings
from dragoman import __main__ as command
from dragoman.settings import StackSettings
from inference_worker.settings import WorkerSettings

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
SECTIONS = {
    StackSettings: "dragoman up",
    BrokerSettings: "The broker",
    ApiSettings: "dragoman-api",
    KeySettings: "API keys",
    WorkerSettings: "dragoman-worker",
    DocumentSettings: "Documents",
    DocumentWorkerSettings: "dragoman-documents",
}


def rows(section: str) -> dict[str, list[str]]:
    """The table of a section: cells by flag."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2]
    lines = text.partition("\n## ")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "| `--" in line]
    return {row[0].strip("`"): row for row in cells}


@pytest.mark.parametrize(("owner", "section"), SECTIONS.items())
def test_every_setting_is_documented_with_its_default(owner: Any, section: str) -> None:
    documented = rows(section)
    settings = [field for field in dataclasses.fields(owner) if "help" in field.metadata]
    assert list(documented) == [flag(field.name) for field in settings]
    for field in settings:
        _, environment, default, meaning = documented[flag(field.name)]
        assert environment == f"`{variable(field.name)}`"
        assert default.strip("`") == ("" if field.default is None else shown(field.default))
        assert meaning.endswith(".")
        for choice in field.metadata["choices"] or ():
            assert f"`{choice}`" in meaning


def test_up_takes_every_setting_of_the_stack() -> None:
    parameters = inspect.signature(command.up).parameters
    fields = {field.name: field.default for field in dataclasses.fields(StackSettings)}
    assert {name: parameter.default for name, parameter in parameters.items()} == fields
