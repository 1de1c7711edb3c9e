"""How the tiers are started, and what is checked before anything starts."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from broker.settings import BrokerSettings
from dragoman import stack, tiers
from dragoman.process import Command
from dragoman.settings import StackSettings
from dragoman.supervisor import StackFailed, Stage, Supervisor

REDIS = {"DRAGOMAN_REDIS_URL": "redis://:secret@example/0"}


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for name in ("dragoman-api", "dragoman-documents", "dragoman-worker"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)


@pytest.mark.usefixtures("_installed")
def test_what_each_tier_is_told() -> None:
    settings = StackSettings(
        host="0.0.0.0", port=8000, workers=2, api_processes=3, model="m", device="cpu", grace_s=5
    )
    api, workers = tiers.api(settings, REDIS), tiers.workers(settings, REDIS)
    assert [command.name for command in workers] == ["worker-1", "worker-2"]
    assert api.ready_count == 3
    assert api.environ == {
        **REDIS,
        "DRAGOMAN_HOST": "0.0.0.0",
        "DRAGOMAN_PORT": "8000",
        "DRAGOMAN_PROCESSES": "3",
        "DRAGOMAN_MODEL": "m",
        "DRAGOMAN_GRACE_S": "5",
        "DRAGOMAN_KEY_SECRET_FILE": "",
        "DRAGOMAN_INSECURE": "false",
        "DRAGOMAN_DRAIN_S": "0",
        "DRAGOMAN_LOG_LEVEL": "info",
    }
    assert workers[0].environ == {
        **REDIS,
        "DRAGOMAN_MODEL": "m",
        "DRAGOMAN_DEVICE": "cpu",
        "DRAGOMAN_NICE": "5",
        "DRAGOMAN_GRACE_S": "5",
    }
    (documents,) = tiers.documents(settings, REDIS)
    assert documents.environ == {**REDIS, "DRAGOMAN_LOG_LEVEL": "info"}
    for command in (api, documents, *workers):
        assert command.stop_within_s > settings.grace_s
        assert "secret" not in " ".join(command.argv)  # the process list is for everyone


@pytest.mark.parametrize(("name", "extra"), [("dragoman-api", "api"), ("dragoman-worker", "cpu")])
def test_a_tier_that_is_not_installed(
    name: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackFailed, match=rf"pip install 'dragoman\[{extra}\]'"):
        tiers.program(name)


def test_a_taken_port_is_known_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(StackFailed, match=rf"port {port} on 127\.0\.0\.1 is in use\. .* --port"),
            stack.assembled(StackSettings(port=port), BrokerSettings(), print),
        ):
            pass


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(StackFailed, match=f"cannot listen on {host} port 9527"):
        stack.check_address(host, 9527)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9527"),
        ("0.0.0.0", "http://127.0.0.1:9527"),
        ("::", "http://[::1]:9527"),
        ("box.lan", "http://box.lan:9527"),
    ],
)
def test_the_url_a_person_can_try(host: str, url: str) -> None:
    settings = StackSettings(host=host)
    assert stack.url(settings) == url
    first, *rest = stack.welcome(settings).splitlines()
    assert first.startswith(f"Dragoman is ready on {url} (1 worker, model small")
    assert f"curl -X POST {url}/translation" in "\n".join(rest)


def sleeper(name: str) -> Command:
    return Command(name, [sys.executable, "-uc", PATIENT], "is ready", stop_within_s=5.0)


PATIENT = "import signal; signal.signal(15, lambda *_: exit(0)); print('is ready'); signal.pause()"
ANY = [lambda name: True]


def test_a_signal_ends_the_run_and_everything_in_it() -> None:
    supervisor = Supervisor([Stage([sleeper("one")]), Stage([sleeper("two")])], ANY, print)
    ready = []

    def interrupt() -> None:
        ready.append([service.process.pid for service in supervisor.services if service.process])
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with stack.Interrupts() as interrupts:
        stack.run(supervisor, interrupts, when_ready=interrupt)
        assert interrupts.count == 1
    assert signal.getsignal(signal.SIGTERM) is before
    (pids,) = ready
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_second_signal_kills_what_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "REPEAT_S", -1.0)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('is ready'); signal.pause()"
    command = Command("deaf", [sys.executable, "-uc", deaf], "is ready", stop_within_s=600.0)
    supervisor = Supervisor([Stage([command])], ANY, print)

    def interrupt_twice() -> None:
        for number in (signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)

    with stack.Interrupts() as interrupts:
        stack.run(supervisor, interrupts, when_ready=interrupt_twice)
    assert supervisor.stopped


def test_a_signal_seen_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "REPEAT_S", 600.0)
    with stack.Interrupts() as interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert interrupts.count == 1


def test_a_run_ends_when_its_work_is_done() -> None:
    supervisor = Supervisor([Stage([sleeper("one")])], ANY, print)
    done: list[bool] = []
    with stack.Interrupts() as interrupts:
        stack.run(supervisor, interrupts, lambda: done.append(True), until=lambda: bool(done))
    assert supervisor.stopped


def test_a_process_that_never_becomes_ready_fails_the_run() -> None:
    command = Command("bad", [sys.executable, "-c", "exit('no such model')"], "is ready", 1.0)
    with stack.Interrupts() as interrupts, pytest.raises(StackFailed, match="no such model"):
        stack.run(Supervisor([Stage([command])], ANY, print), interrupts, when_ready=list)
