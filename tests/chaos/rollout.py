"""The next protocol version, as a rollout brings it: a copy of the tiers whose version is one
higher, whose functions therefore have names of their own, and whose records carry a field that the
present version has never heard of."""

import shutil
from pathlib import Path

from broker.wire import PROTOCOL_VERSION

ROOT = Path(__file__).parents[2]
NEXT = PROTOCOL_VERSION + 1
_TIERS = ("api", "broker", "inference_worker")


def next_version(directory: Path) -> Path:
    """Writes the copy below ``directory``; processes started there import it."""
    for tier in _TIERS:
        shutil.copytree(ROOT / tier, directory / tier, ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "tests" / "chaos").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "chaos" / "worker.py", directory / "tests" / "chaos")
    functions, wire = directory / "broker" / "functions.lua", directory / "broker" / "wire.py"
    _replace(functions, f"dragoman_v{PROTOCOL_VERSION}", f"dragoman_v{NEXT}")
    _replace(functions, '","accepted_ms":', '","glossary":"house","accepted_ms":')
    _replace(wire, f"PROTOCOL_VERSION = {PROTOCOL_VERSION}\n", f"PROTOCOL_VERSION = {NEXT}\n")
    field = '    traceparent: str = ""\n'
    _replace(wire, field, f'{field}    glossary: str = ""\n')
    return directory


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise AssertionError(f"{path.name} no longer holds {old!r}: the next version needs it")
    path.write_text(text.replace(old, new), encoding="utf-8")
