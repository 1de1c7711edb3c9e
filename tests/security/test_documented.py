"""docs/security.md names a test for each defence; they must be there. And what only a look at the
sources can show."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
SHIPPED = ("api", "broker", "document_formats", "document_worker", "dragoman", "inference_worker")


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_every_test_that_is_named_is_there() -> None:
    named = NAMED.findall(DOCUMENT)
    assert len(named) > 30
    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert not name or name in functions_of(ROOT / path), f"{path}::{name}"


def test_every_defence_names_a_test() -> None:
    table = DOCUMENT.partition("## What stands against what")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        assert "::test_" in row, row


def test_the_way_to_report_is_there() -> None:
    assert "(../SECURITY.md)" in DOCUMENT
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_no_code_comes_with_a_checkpoint() -> None:
    """Nothing unpickles freely, and no loader is told to trust what a repository brings along."""
    for folder in SHIPPED:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert words.get("trust_remote_code", "False") == "False", path
                assert called not in ("pickle.load", "pickle.loads", "eval", "exec"), path
                if called == "torch.load":
                    assert words.get("weights_only") == "True", path
