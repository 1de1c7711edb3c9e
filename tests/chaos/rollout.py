"""The next protocol version, as a rollout brings it: a copy of the tiers whose version is one
higher, whose functions therefore have names of their own, and whose records carry a field that the
present version has never heard of."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from broker.wire import PROTOCOL_VERSION

ROOT = Path(__file__).parents[2]
NEXT = PROTOCOL_VERSION + 1
_LAST_FIELD = '    traceparent: str = ""\n'
_TIERS = ("api", "broker", "inference_worker")


def next_version(directory: Path) -> Path:
    """Writes the copy below ``directory``; processes started there import it."""
    for tier in _TIERS:
        shutil.copytree(ROOT / tier, directory / tier, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "tests" / "chaos").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "chaos" / "worker.py", directory / "tests" / "chaos")
    _edit(directory / "broker" / "functions.lua", lambda text: text.replace(*_names()))
    _edit(directory / "broker" / "wire.py", _newer_records)
    _edit(directory / "broker" / "producer.py", _write_newer_records)
    return directory


def _names() -> tuple[str, str]:
    return f"dragoman_v{PROTOCOL_VERSION}", f"dragoman_v{NEXT}"


def _edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text(encoding="utf-8")
    after = change(before)
    if after == before:
        raise AssertionError(f"{path.name} no longer looks as the next version's recipe expects")
    path.write_text(after, encoding="utf-8")


def _newer_records(text: str) -> str:
    text = re.sub(r"(?m)^PROTOCOL_VERSION = \d+$", f"PROTOCOL_VERSION = {NEXT}", text)
    return text.replace(_LAST_FIELD, f'{_LAST_FIELD}    glossary: str = ""\n', 1)


def _write_newer_records(text: str) -> str:
    text = text.replace(_LAST_FIELD, f'{_LAST_FIELD}    glossary: str = ""\n', 1)
    argument = "traceparent=submission.traceparent,"
    return text.replace(argument, f'{argument} glossary="house",', 1)
