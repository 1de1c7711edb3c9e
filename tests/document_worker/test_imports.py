"""What the documents tier and the API load, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("loaded", "forbidden"),
    [
        ("document_worker.__main__", "torch transformers ctranslate2 fastapi starlette api"),
        ("api.__main__", "torch document_worker"),
        ("document_formats.kinds", "redis msgspec broker api document_worker"),
    ],
)
def test_tiers_stay_apart(loaded: str, forbidden: str) -> None:
    code = f"import sys, {loaded}; print(*(n for n in {forbidden.split()!r} if n in sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""
