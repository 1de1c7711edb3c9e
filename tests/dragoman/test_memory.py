"""``dragoman memory`` as it is typed, against a real server."""

import pytest

from broker.memory import Memory
from broker.settings import BrokerSettings
from dragoman.__main__ import app
from dragoman.console import FAILED
from tests.broker.test_memory import of
from tests.redis_server import RedisServer

Capture = pytest.CaptureFixture[str]


def run(*arguments: str) -> int:
    """The exit code of ``dragoman memory`` with these arguments."""
    with pytest.raises(SystemExit) as ending:
        app(["memory", *arguments])
    return int(ending.value.code or 0)


def test_forget_takes_one_tenants_sentences(
    redis_server: RedisServer, broker_settings: BrokerSettings, capfd: Capture
) -> None:
    memory = Memory(broker_settings)
    memory.keep(of("one", "two", tenant="a") | of("three") | of("four", tenant="b"))
    url = ("--redis-url", redis_server.url)
    assert [run("forget", "a", *url), run("forget", *url), run("forget", "a", *url)] == [0, 0, 0]
    assert capfd.readouterr().out.splitlines() == [
        "2 sentences of a are forgotten",
        "1 sentences of default are forgotten",
        "0 sentences of a are forgotten",
    ]
    assert memory.find(of("one", "two", tenant="a") | of("three")) == {}
    assert memory.find(of("four", tenant="b"))
    memory.close()


def test_forget_without_a_redis(capfd: Capture) -> None:
    assert run("forget", "--redis-url", "redis://127.0.0.1:9/0") == FAILED
    assert "Redis does not answer" in capfd.readouterr().err
