"""``dragoman dead-letters`` as it is typed, against a real server."""

import asyncio
import os

import pytest

from broker.dead_letters import DeadLetters
from broker.producer import Producer
from broker.settings import BrokerSettings
from dragoman.__main__ import app
from tests.broker.parties import answers, worker
from tests.broker.test_dead_letters import bury
from tests.redis_server import RedisServer, closed_port

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _this_redis(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DRAGOMAN_REDIS_URL", redis_server.url)


def run(*arguments: str) -> int:
    """The exit code of ``dragoman dead-letters`` with these arguments."""
    with pytest.raises(SystemExit) as end:
        app(["dead-letters", *arguments])
    code = end.value.code
    assert isinstance(code, int)
    return code


def buried(settings: BrokerSettings, *texts: str) -> list[str]:
    """Makes dead letters of texts; their ids."""

    async def make() -> None:
        producer, consumer = Producer(settings, "api-1"), worker(settings)
        await bury(producer, consumer, *texts, tenant="acme")
        consumer.close()
        await producer.close()

    asyncio.run(make())
    letters = DeadLetters(settings)
    ids = [letter.id for letter in letters]
    letters.close()
    return ids


def test_none(capfd: Capture) -> None:
    assert run("list") == 0
    assert "There are no dead letters." in capfd.readouterr().out


def test_the_list_shows_no_text(broker_settings: BrokerSettings, capfd: Capture) -> None:
    ids = buried(broker_settings, "a secret", "another")
    assert run("list") == 0
    shown = capfd.readouterr().out
    assert "secret" not in shown
    lines = shown.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ids
    assert "acme" in lines[0]
    assert "en-ja" in lines[0]
    assert lines[0].split()[-2:] == ["8", "3"]  # characters, attempts


def test_show_tells_the_text_when_asked(broker_settings: BrokerSettings, capfd: Capture) -> None:
    (letter_id,) = buried(broker_settings, "a secret")
    assert run("show", letter_id) == 0
    shown = capfd.readouterr().out
    assert "secret" not in shown
    assert "given up by  w-9" in shown
    assert "poison: The record ended every worker" in shown
    assert run("show", letter_id, "--text") == 0
    assert capfd.readouterr().out.endswith("\na secret\n")


def test_retry_prints_where_the_result_will_be(
    broker_settings: BrokerSettings, capfd: Capture
) -> None:
    (letter_id,) = buried(broker_settings, "text")
    assert run("retry", letter_id) == 0
    shown = capfd.readouterr().out.strip()
    assert shown.startswith(f"{letter_id} queued again as /jobs/")
    consumer = worker(broker_settings)
    deliveries = consumer.read(8, 8, 0)
    assert [d.record.request for d in deliveries] == [shown.rpartition("/")[2]]
    assert consumer.complete(answers(deliveries)) == 1
    consumer.close()
    assert run("list") == 0
    assert "There are no dead letters." in capfd.readouterr().out


def test_all_of_them(broker_settings: BrokerSettings, capfd: Capture) -> None:
    ids = buried(broker_settings, "one", "two", "three")
    assert run("discard", ids[0]) == 0
    assert run("retry", "--all") == 0
    shown = capfd.readouterr().out.splitlines()
    assert shown[0] == f"{ids[0]} discarded"
    assert [line.split()[0] for line in shown[1:]] == ids[1:]
    assert run("discard", "--all") == 0
    assert capfd.readouterr().out == ""


def test_an_unknown_one_changes_nothing(broker_settings: BrokerSettings, capfd: Capture) -> None:
    (letter_id,) = buried(broker_settings, "text")
    for command in ("retry", "discard"):
        assert run(command, letter_id, "5-5") == 1
        assert "there is no dead letter '5-5'" in capfd.readouterr().err
    assert run("show", "5-5") == 1
    assert run("show", letter_id) == 0


@pytest.mark.parametrize("command", ["retry", "discard"])
@pytest.mark.parametrize("arguments", [[], ["1-1", "--all"]])
def test_ids_or_all(command: str, arguments: list[str], capfd: Capture) -> None:
    assert run(command, *arguments) == 2
    assert "--all" in capfd.readouterr().err


def test_no_redis_is_one_readable_line(capfd: Capture) -> None:
    assert run("list", "--redis-url", f"redis://127.0.0.1:{closed_port()}/0") == 1
    shown = capfd.readouterr().err
    assert shown.startswith("dragoman: ")
    assert "Traceback" not in shown
