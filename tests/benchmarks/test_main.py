"""The list of benchmarks, and all of them in one go."""

import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as everything
from benchmarks import servers

ROOT = Path(__file__).parents[2]


def test_every_benchmark_is_listed_and_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert everything.main([]) == 0
    listed = capsys.readouterr().out
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for name in everything.BENCHMARKS:
        assert (ROOT / "benchmarks" / f"{name}.py").exists()
        assert f"python -m benchmarks.{name} " in listed
        assert f"`benchmarks.{name}`" in readme


def test_sections_come_in_order_and_who_failed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(name: str, folder: Path) -> list[str]:
        code = f"import pathlib; pathlib.Path({str(folder / name)!r} + '.md').write_text('{name}!')"
        return [sys.executable, "-c", "raise SystemExit(2)" if name == "peers" else code]

    monkeypatch.setattr(everything, "command", command)
    monkeypatch.setattr(servers, "stop_in_order_when_terminated", lambda: None)
    (tmp_path / "peers.md").write_text("of an earlier run")
    assert everything.main(["--all", str(tmp_path), "memory", "peers", "latency"]) == 1
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text == "## Memory\n\nmemory!\n## Latency\n\nlatency!"
    assert "Failed: peers (exit status 2)." in capsys.readouterr().err


def test_what_cannot_be_run_in_one_go_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        everything.main(["--all", "folder", "engine"])
    assert "engine: not one of pipeline, latency" in capsys.readouterr().err
