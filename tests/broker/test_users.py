"""The Redis users of acl.example on a real server: what each may, and what it may not."""

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from broker import functions, users
from broker.consumer import Consumer
from broker.errors import BrokerMisconfigured, BrokerUnavailable
from broker.keys import shard_keys
from broker.memory import Memory, Name
from broker.meter import MINUTE_MS, Charge, Meter
from broker.producer import Producer
from broker.settings import BrokerSettings
from broker.tenants import Tenants, key_id
from broker.wire import Completion, ModelEntry, Outcome, Submission, WorkerEntry
from tests.redis_server import RedisServer

MODEL = "small"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("users")
    users.write(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisServer]:
    made = RedisServer(extra=("--aclfile", str(folder / users.ACL_FILE))).start()
    functions.init(settings_of(made, folder, "operator"))
    yield made
    made.stop()


def settings_of(server: RedisServer, folder: Path, name: str) -> BrokerSettings:
    return BrokerSettings(
        redis_url=server.url,
        redis_user=f"dragoman-{name}",
        redis_password_file=str(folder / f"{name}.password"),
        redis_timeout_s=20.0,
    )


def client_of(server: RedisServer, folder: Path, name: str) -> Any:
    password = (folder / f"{name}.password").read_text().strip()
    return redis.Redis(port=server.port, username=f"dragoman-{name}", password=password)


EVERYBODY = ("api", "worker", "documents", "rq")
FORBIDDEN = [
    ("KEYS", "*"), ("SCAN", "0"), ("CONFIG", "GET", "*"), ("EVAL", "return 1", "0"),
    ("FUNCTION", "LOAD", "REPLACE", "#!lua name=x\n"), ("FUNCTION", "FLUSH"), ("FLUSHALL",),
    ("ACL", "LIST"), ("SHUTDOWN",), ("MONITOR",), ("DBSIZE",),
    ("REPLICAOF", "NO", "ONE"), ("CLIENT", "KILL", "ID", "1"), ("RANDOMKEY",),
    ("GET", "another's"), ("HSET", "dragoman:{tenants}:keys", "a", "b"),
    ("HSET", "dragoman:{tenants}:quotas", "a", "b"),
]  # fmt: skip
OF_ONE = [
    ("api", ("XREADGROUP", "GROUP", "workers", "me", "STREAMS", "dragoman:{0}:queue:m:bulk", ">")),
    ("api", ("XADD", "dragoman:{0}:dead", "*", "a", "b")),
    ("api", ("HSET", "dragoman:{0}:model:m", "a", "b")),
    ("api", ("GET", "dragoman:{0}:memory:acme:digest")),
    ("api", ("GET", "rq:queue:documents")),
    ("worker", ("ZADD", "dragoman:{0}:backlog:m:bulk", "1", "record")),
    ("worker", ("XREAD", "STREAMS", "dragoman:{0}:reply:process", "0")),
    ("worker", ("HGETALL", "dragoman:{0}:document:acme:id")),
    ("worker", ("HGETALL", "dragoman:{tenants}:keys")),
    ("worker", ("LRANGE", "rq:queue:documents", "0", "-1")),
    ("documents", ("HGETALL", "dragoman:{tenants}:keys")),
    ("documents", ("XREADGROUP", "GROUP", "g", "me", "STREAMS", "dragoman:{0}:queue:m:bulk", ">")),
    ("documents", ("GET", "dragoman:{0}:memory:acme:digest")),
    ("rq", ("HGETALL", "dragoman:{0}:load")),
    ("rq", ("FCALL", "dragoman_v2_submit", "0")),
    ("rq", ("PUBLISH", "elsewhere", "x")),
]  # fmt: skip


@pytest.mark.parametrize("name", EVERYBODY)
def test_what_no_tier_may(name: str, server: RedisServer, folder: Path) -> None:
    with client_of(server, folder, name) as client:
        for command in FORBIDDEN:
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


@pytest.mark.parametrize(("name", "command"), OF_ONE)
def test_what_belongs_to_another_tier(
    name: str, command: tuple[str, ...], server: RedisServer, folder: Path
) -> None:
    with (
        client_of(server, folder, name) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command)


def test_without_a_user_a_server_only_tells_that_it_lives(server: RedisServer) -> None:
    assert server.client.ping()
    for command in (("GET", "a"), ("INFO",), ("FCALL", "dragoman_v2_revision", "0")):
        with pytest.raises(redis.exceptions.NoPermissionError):
            server.client.execute_command(*command)


def submission(producer: Producer, text: str = "one") -> Submission:
    return Submission(
        id=producer.new_request_id(), tenant="acme", model=MODEL, lane="interactive", source="en",
        target="ja", ids=["a"], texts=[text], deadline_ms=60_000, idempotency=text.ljust(64, "d"),
    )  # fmt: skip


async def test_records_pass_between_tiers_that_may_no_more_than_they_must(
    server: RedisServer, folder: Path
) -> None:
    consumer = Consumer(settings_of(server, folder, "worker"), MODEL)
    consumer.prepare()
    consumer.announce(ModelEntry(MODEL, "r1", ["en", "ja"], 128))
    entry = WorkerEntry(consumer.worker, MODEL, "cpu", "test", 8, 0, 0, 0, 0)
    consumer.heartbeat(entry, 8)
    for tier in ("api", "documents"):
        producer = Producer(settings_of(server, folder, tier), f"process-{tier}")
        await producer.prepare()
        await producer.listen(shard_keys(1)[0])
        made = submission(producer, tier)
        assert (await producer.submit(made)).id == made.id
        (delivery,) = consumer.read(8, 8, 1000)
        assert consumer.renew([delivery]) == {delivery.place}
        assert consumer.begin([delivery]) == ["go"]
        assert consumer.complete([Completion(delivery, Outcome(text="eno"))]) == 1
        view = await producer.view("acme", made.id)
        assert view is not None
        assert (view[0].state, view[1][0].text) == ("done", "eno")
        other = Producer(producer.settings, "gone")
        waiting = await other.submit(
            msgspec.structs.replace(made, id=other.new_request_id(), idempotency="")
        )
        status = await producer.cancel("acme", waiting.id)
        assert status is not None
        assert status.state == "cancelled"
        for delivery in consumer.read(8, 8, 50):
            consumer.discard([delivery])
        await other.close()
        await producer.close()
    consumer.reclaim(8)
    asked = Producer(settings_of(server, folder, "worker"), "health")  # as its health check does
    assert [live.id for live in await asked.workers(MODEL)] == [consumer.worker]
    await asked.close()
    consumer.close()


async def test_identical_requests_join_and_part(server: RedisServer, folder: Path) -> None:
    consumer = Consumer(settings_of(server, folder, "worker"), MODEL)
    consumer.prepare()
    producer = Producer(settings_of(server, folder, "api"), "process-api")
    await producer.prepare()
    alike = msgspec.structs.replace(submission(producer), idempotency="", join="work")
    first = await producer.submit(alike)
    other = msgspec.structs.replace(alike, id=producer.new_request_id(), deadline_ms=90_000)
    assert (await producer.submit(other)).id == first.id
    await producer.leave("acme", first.id)
    (delivery,) = consumer.read(8, 8, 1000)
    assert consumer.complete([Completion(delivery, Outcome(text="eno"))]) == 1
    again = await producer.submit(other)
    assert again.id == other.id  # the worker has taken the mark away
    await producer.cancel("acme", again.id)
    consumer.discard(consumer.read(8, 8, 50))
    await producer.close()
    consumer.close()


def test_a_worker_remembers_what_it_translated(
    server: RedisServer, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(settings_of(server, folder, "worker"), memory_sentences=2)
    memory = Memory(settings)
    names = [Name("acme", f"{number:064x}") for number in range(4)]
    memory.keep(dict.fromkeys(names, "text"))  # more than it may: the oldest are forgotten
    memory.keep({names[3]: "text"})
    assert memory.find(names)
    assert not caplog.records
    memory.close()


async def test_a_worker_cannot_hand_work_in(server: RedisServer, folder: Path) -> None:
    producer = Producer(settings_of(server, folder, "worker"), "process")
    with pytest.raises((BrokerMisconfigured, BrokerUnavailable), match=r"zadd|ACL|permission"):
        await producer.submit(submission(producer))
    await producer.close()
    with client_of(server, folder, "operator") as client:
        assert not list(client.scan_iter("dragoman:{0}:backlog:*"))


async def test_the_api_meters_with_keys_that_it_cannot_make(
    server: RedisServer, folder: Path
) -> None:
    with Tenants(settings_of(server, folder, "operator")) as tenants:
        identity = key_id(tenants.create(b"s" * 40, "acme"))
    meter = Meter(settings_of(server, folder, "api"))
    assert identity is not None
    assert await meter.key(identity) is not None
    assert await meter.charge("acme", [Charge("chars", 1, 10, MINUTE_MS)]) is None
    with (
        Tenants(settings_of(server, folder, "api")) as forbidden,
        pytest.raises(BrokerMisconfigured, match="refuses this user"),
    ):
        forbidden.create(b"s" * 40, "acme")
    await meter.close()


def test_passwords_stay_and_are_the_owners_alone(tmp_path: Path) -> None:
    written = users.write(tmp_path / "new")
    assert [path.name for path in written] == [
        *(f"{name}.password" for name in users.USERS), users.ACL_FILE,
    ]  # fmt: skip
    acl = written[-1].read_text()
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    passwords = [path.read_text().strip() for path in written[:-1]]
    assert len(set(passwords)) == len(users.USERS)
    assert not any(password in acl for password in passwords)
    assert [path.name for path in users.write(tmp_path / "new")] == [users.ACL_FILE]
    assert written[-1].read_text() == acl


def test_an_empty_password_or_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "api.password").write_text("\n")
    with pytest.raises(BrokerMisconfigured, match="holds no password"):
        users.write(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerMisconfigured, match="file"):
        users.write(tmp_path / "file")


def test_a_wrong_password_is_told_without_it(
    server: RedisServer, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "wrong").write_text("not-the-password")
    settings = BrokerSettings(
        redis_url=server.url,
        redis_user="dragoman-api",
        redis_password_file=str(tmp_path / "wrong"),
    )
    with pytest.raises(BrokerMisconfigured, match="refuses this user") as error:
        functions.init(settings)
    assert "not-the-password" not in str(error.value)
