"""``dragoman keys`` as it is typed, and the client that sends what it made."""

import asyncio
from pathlib import Path

import pytest

from api.__main__ import main as api_main
from dragoman import AsyncClient, Client, KeyRefused
from dragoman.__main__ import FAILED
from dragoman.settings import StackSettings
from dragoman.stack import check_keys, welcome
from dragoman.supervisor import StackFailed
from tests.api.stage import Worker, api_process
from tests.conftest import settings_for
from tests.dragoman.test_main import Capture, run
from tests.redis_server import RedisServer, closed_port


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "secret"
    path.write_text("k" * 48)
    return str(path)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer) -> None:
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", redis_server.url)


def test_create_list_revoke(secret: str, capfd: Capture) -> None:
    made = "keys", "create", "acme", "--note", "the build server", "--key-secret-file", secret
    assert run(*made) == 0
    key, told = capfd.readouterr()
    assert key.startswith("dgm_")
    assert len(key.splitlines()) == 1  # so that it can be put into a file or a variable
    assert key.strip() not in told
    assert run("keys", "create", "other", "--key-secret-file", secret) == 0
    capfd.readouterr()
    assert run("keys", "list") == 0
    listed = capfd.readouterr().out
    assert len(listed.splitlines()) == 2
    assert key.strip() not in listed
    assert run("keys", "list", "--tenant", "acme") == 0
    identity, tenant, made_at, *note = capfd.readouterr().out.split()
    assert (tenant, " ".join(note)) == ("acme", "the build server")
    assert key.startswith(f"dgm_{identity}_")
    assert made_at.endswith("Z")
    assert run("keys", "revoke", identity) == 0
    capfd.readouterr()
    assert run("keys", "revoke", identity) == FAILED
    assert "no key with this id" in capfd.readouterr().err


def test_quota(capfd: Capture) -> None:
    assert run("keys", "quota", "acme", "--requests-per-s", "2.5", "--weight", "3") == 0
    capfd.readouterr()
    assert run("keys", "quota", "acme", "--chars-per-minute", "60000", "--weight", "1") == 0
    shown = capfd.readouterr().out.splitlines()
    assert shown == [
        "requests-per-s: 2.5", "chars-per-minute: 60,000", "outstanding-chars: none", "weight: 1",
    ]  # fmt: skip
    assert run("keys", "quota", "acme") == 0
    assert capfd.readouterr().out.splitlines() == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "acme"], "--key-secret-file"),
        (["create", "a b", "--key-secret-file", "SECRET"], "1 to 64 letters"),
        (["quota", "acme", "--weight", "0"], "weight must be between"),
        (["quota", "acme", "--requests-per-s", "-1"], "0 (no limit) or more"),
        (["revoke", "acme"], "by its id"),
    ],
)
def test_what_does_not_fit_is_named(
    arguments: list[str], message: str, secret: str, capfd: Capture
) -> None:
    filled = [secret if argument == "SECRET" else argument for argument in arguments]
    assert run("keys", *filled) == 2
    shown = " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert message in shown


def test_a_secret_or_a_redis_that_is_not_there(
    tmp_path: Path, secret: str, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "none")
    assert run("keys", "create", "acme", "--key-secret-file", missing) == FAILED
    assert "No such file" in capfd.readouterr().err
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", f"redis://127.0.0.1:{closed_port()}/0")
    assert run("keys", "list") == FAILED
    complaint = capfd.readouterr().err
    assert "Redis does not answer" in complaint
    assert complaint.endswith(". Say where it is: --redis-url, or DRAGOMAN_REDIS_URL.\n")


def test_up_refuses_an_open_address_before_anything_starts(secret: str) -> None:
    with pytest.raises(StackFailed, match="--insecure"):
        check_keys(StackSettings(host="0.0.0.0"))
    check_keys(StackSettings(host="0.0.0.0", insecure=True))
    check_keys(StackSettings(host="0.0.0.0", key_secret_file=secret))
    with pytest.raises(StackFailed, match="No such file"):
        check_keys(StackSettings(key_secret_file=secret + "x"))
    assert "Authorization: Bearer" in welcome(StackSettings(key_secret_file=secret))
    assert "Authorization" not in welcome(StackSettings())


@pytest.mark.slow
def test_the_whole_way(secret: str, redis_server: RedisServer, capfd: Capture) -> None:
    """A key from the command line opens a real API for the clients and the command."""
    assert run("keys", "create", "acme", "--key-secret-file", secret) == 0
    key = capfd.readouterr().out.strip()
    flags = ("--key-secret-file", secret, "--metrics-open", "false")
    with (
        Worker(settings_for(redis_server)),
        api_process(redis_server.url, *flags) as process,
    ):
        with Client(process.url, key=key) as client:
            assert client.translate("one", "en", "ja") == "eno"
            (two,) = client.submit(["two"], "en", "ja").events()
            assert two.text == "owt"
        assert asyncio.run(_translated(process.url, key)) == "eerht"
        with Client(process.url) as client, pytest.raises(KeyRefused, match="API key"):
            client.languages()
        command = ["--from", "en", "--to", "ja", "--url", process.url, "four"]
        assert run("translate", *command, "--key", key) == 0
        assert capfd.readouterr().out == "ruof\n"
        assert run("translate", *command) == FAILED
        complaint = capfd.readouterr().err
        assert "needs an API key" in complaint
        assert complaint.endswith(" Here: --key, or DRAGOMAN_API_KEY.\n")
        assert run("top", "--once", "--url", process.url, "--key", key) == 0
        assert run("top", "--once", "--url", process.url) == FAILED
    assert key not in process.log


async def _translated(url: str, key: str) -> str:
    async with AsyncClient(url, key=key) as client:
        return await client.translate("three", "en", "ja")


def test_an_open_api_without_keys_does_not_start(redis_server: RedisServer) -> None:
    assert api_main(["--redis-url", redis_server.url, "--host", "0.0.0.0", "--port", "0"]) == 2
    missing = ["--key-secret-file", "/nonexistent/secret"]
    assert api_main(["--redis-url", redis_server.url, "--port", "0", *missing]) == 2


@pytest.mark.slow
def test_an_open_api_starts_when_that_is_meant(redis_server: RedisServer) -> None:
    with api_process(redis_server.url, "--host", "0.0.0.0", "--insecure") as process:
        assert "dragoman-api ready" in process.log
