"""The ``dragoman`` command as it is typed: output, messages and exit codes."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dragoman.__main__ import FAILED, INTERRUPTED, PARTLY_FAILED, app
from inference_worker import checkpoint
from tests.dragoman.fake_service import FakeService, Scripted, problem
from tests.redis_server import RedisServer, closed_port

Wait = Callable[..., Any]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)


def run(*arguments: str) -> int:
    """The exit code of ``dragoman`` with these arguments."""
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    code = end.value.code
    assert isinstance(code, int)
    return code


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dragoman", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_version(capfd: Capture) -> None:
    assert run("--version") == 0
    assert capfd.readouterr().out.startswith("dragoman 0.")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["up", "-h"], ["translate", "--help"], ["models", "--help"]]
)
def test_help(arguments: list[str], capfd: Capture) -> None:
    assert run(*arguments) == 0
    assert "Usage:" in capfd.readouterr().out


def test_broker_init_has_the_brokers_own_help(capfd: Capture) -> None:
    assert run("broker", "init", "--help") == 0
    assert "DRAGOMAN_REDIS_PASSWORD_FILE" in capfd.readouterr().out


def test_broker_init_loads_the_functions(redis_server: RedisServer, capfd: Capture) -> None:
    redis_server.client.function_flush()
    assert run("broker", "init", "--redis-url", redis_server.url) == 0
    assert "dragoman_v2" in capfd.readouterr().out
    assert redis_server.client.function_list()


def test_broker_init_without_a_broker(capfd: Capture) -> None:
    assert run("broker", "init", "--redis-url", "redis://127.0.0.1:9/0") == FAILED
    assert capfd.readouterr().err.startswith("dragoman: Redis does not answer")


def test_texts_are_translated_in_one_call(service: FakeService, capfd: Capture) -> None:
    assert run("translate", "--from", "en", "--to", "ja", "--url", service.url, "one", "two") == 0
    assert capfd.readouterr() == ("ONE\nTWO\n", "")
    assert len(service.calls("POST", "/translation")) == 1


def test_the_server_may_be_named_by_the_environment(
    service: FakeService, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAGOMAN_URL", service.url)
    assert run("translate", "--from", "en", "--to", "ja", "hello") == 0
    assert capfd.readouterr().out == "HELLO\n"


def test_a_file_into_a_file(service: FakeService, tmp_path: Path, capfd: Capture) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(b"one\r\n\r\ntwo")
    options = ["--from", "en", "--to", "ja", "--url", service.url, "--output", str(target)]
    assert run("translate", *options, str(source)) == 0
    assert target.read_bytes() == b"ONE\r\n\r\nTWO"
    assert capfd.readouterr() == ("", "")
    assert run("translate", *options, str(target)) == FAILED
    assert "is one of the files to be translated" in capfd.readouterr().err


def test_a_file_that_is_not_there_is_said_to_be_read_as_text(
    service: FakeService, capfd: Capture
) -> None:
    options = ["--from", "en", "--to", "ja", "--url", service.url]
    assert run("translate", *options, "leter.txt", "and/or", "Come in. Now") == 0
    output, complaint = capfd.readouterr()
    assert output == "LETER.TXT\nAND/OR\nCOME IN. NOW\n"
    assert complaint == "dragoman: there is no file leter.txt; it is translated as text\n"


def test_standard_input(service: FakeService) -> None:
    with start("translate", "--from", "en", "--to", "ja", "--url", service.url) as process:
        assert process.communicate("one\n\ntwo\n", timeout=120) == ("ONE\n\nTWO\n", "")
    assert process.returncode == 0


def test_a_failed_line_is_named_and_makes_the_exit_code_3(
    service: FakeService, tmp_path: Path, capfd: Capture
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("one\npoison\n")
    options = ["--from", "en", "--to", "ja", "--url", service.url]
    assert run("translate", *options, str(source)) == PARTLY_FAILED
    assert capfd.readouterr() == ("ONE\n\n", "line 2: it cannot be done (poison)\n")
    assert run("translate", *options, "one", "poison") == PARTLY_FAILED
    assert capfd.readouterr() == ("ONE\n\n", "text 2: it cannot be done (poison)\n")


def test_the_servers_reason_is_shown(service: FakeService, tmp_path: Path, capfd: Capture) -> None:
    refusal = problem(422, "unknown_language", "payload.fromLang is no language of the model.")
    service.script.extend([Scripted(503, problem(503, "x", "y")), Scripted(422, refusal)])
    kept = tmp_path / "out.txt"
    kept.write_text("as it was")
    options = ["--from", "xx", "--to", "ja", "--url", service.url, "-o", str(kept)]
    assert run("translate", *options, "hello") == FAILED
    assert capfd.readouterr() == ("", "dragoman: --from is no language of the model.\n")
    assert kept.read_text() == "as it was"


def test_no_server(capfd: Capture) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    assert run("translate", "--from", "en", "--to", "ja", "--url", url, "hello") == FAILED
    assert f"dragoman: no answer from {url}/" in capfd.readouterr().err


def test_ctrl_c_cancels_the_jobs(service: FakeService, wait_until: Wait, tmp_path: Path) -> None:
    service.held.clear()
    source = tmp_path / "in.txt"
    source.write_text("line\n" * 300)
    options = ["--from", "en", "--to", "ja", "--url", service.url]
    with start("translate", *options, str(source)) as process:
        wait_until(
            lambda: any(seen.path.startswith("/jobs/") for seen in service.seen),
            description="the command waits for its jobs",
        )
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED
    assert "interrupted" in complaint
    assert [job["state"] for job in service.jobs.values()] == ["cancelled", "cancelled"]


def test_a_reader_that_leaves_early(service: FakeService, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("line\n" * 20_000)
    with start("translate", "--from", "en", "--to", "ja", "--url", service.url, str(source)) as one:
        assert one.stdout is not None
        assert one.stderr is not None
        assert one.stdout.readline() == "LINE\n"
        one.stdout.close()
        assert one.stderr.read() == ""
    assert one.returncode == FAILED


def test_a_progress_bar_on_a_terminal(service: FakeService, tmp_path: Path) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("line\n" * 600)
    ours, theirs = pty.openpty()
    options = ["--from", "en", "--to", "ja", "--url", service.url, "-o", str(target), str(source)]
    command = [sys.executable, "-m", "dragoman", "translate", *options]
    environ = os.environ | {"TERM": "xterm"}
    process = subprocess.Popen(command, stderr=theirs, stdin=theirs, stdout=theirs, env=environ)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    assert process.wait(120) == 0
    assert b"translating" in drawn
    assert target.read_text() == "LINE\n" * 600


def test_pull_is_the_worker_tiers_business(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def record(argv: list[str]) -> subprocess.CompletedProcess[str]:
        called.append(argv)
        return subprocess.CompletedProcess(argv, 3)

    monkeypatch.setattr("subprocess.run", record)
    assert run("models", "pull", "facebook/m2m100_418M", "--revision", "main") == 3
    ((program, *arguments),) = called
    assert program.endswith("dragoman-worker")
    assert arguments == ["pull", "facebook/m2m100_418M", "--revision", "main"]


def test_list_names_what_was_pulled(tmp_path: Path, capfd: Capture) -> None:
    assert run("models", "list", "--cache-dir", str(tmp_path / "absent")) == 0
    assert capfd.readouterr().out == "small  bundled\n"
    place = checkpoint.home("facebook/m2m100_418M", tmp_path)
    (place / "55c2e61").mkdir(parents=True)
    (place / "55c2e61" / checkpoint.WEIGHTS_FILE).write_bytes(bytes(2_000_000))
    (place / checkpoint.PIN_FILE).write_text("55c2e61\n")
    assert run("models", "list", "--cache-dir", str(tmp_path)) == 0
    assert "facebook/m2m100_418M  55c2e61  2 MB\n" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "between 1 and 65535"),
        (["--workers", "0"], "--workers must be between 1 and 256"),
        (["--grace-s", "nan"], "--grace-s must be 0 or more"),
        (["--device", "tpu"], "--device must be one of auto, cpu, cuda"),
        (["--redis-url", "redis://x", "--data-dir", "y"], "give one of the two"),
    ],
)
def test_settings_that_do_not_fit(arguments: list[str], message: str, capfd: Capture) -> None:
    assert run("up", *arguments) == 2
    assert message in " ".join(capfd.readouterr().err.replace("│", " ").split())
