import asyncio

import pytest
import redis
import uvloop

from broker import functions
from broker.coalescer import Coalescer
from broker.connection import connect, parse_url, reaching_redis, translated
from broker.errors import BrokerMisconfigured, BrokerUnavailable
from broker.settings import BrokerSettings
from tests.redis_server import RedisServer, closed_port


def test_sentinel_and_cluster_urls_name_hosts_service_and_credentials() -> None:
    sentinel = parse_url("redis+sentinel://me:p%40ss@a:1,b/main/2")
    assert sentinel.hosts == (("a", 1), ("b", 26_379))
    assert sentinel.service == "main"
    assert sentinel.options == {"username": "me", "password": "p@ss", "db": 2}
    cluster = parse_url("redis+cluster+tls://a:7000,b:7001")
    assert cluster.hosts == (("a", 7000), ("b", 7001))
    assert cluster.options == {"ssl": True}


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "127.0.0.1:6379",
        "redis+sentinel://a:1",
        "redis+cluster://",
        "redis+cluster://a:x",
    ],
)
def test_other_urls_are_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(BrokerMisconfigured, match="--redis-url"):
        parse_url(url)


def test_the_password_file_is_used_and_a_missing_one_is_named(tmp_path) -> None:
    server = RedisServer(extra=("--requirepass", "s3cret")).start()
    try:
        (tmp_path / "password").write_text("s3cret\n")
        settings = BrokerSettings(
            redis_url=server.url, redis_password_file=str(tmp_path / "password")
        )
        functions.init(settings)
        with pytest.raises(BrokerMisconfigured, match="refuses this user"):
            functions.init(BrokerSettings(redis_url=server.url))
    finally:
        server.stop()
    with pytest.raises(BrokerMisconfigured, match="cannot be read"):
        connect(BrokerSettings(redis_password_file=str(tmp_path / "none")))


def test_a_server_that_is_not_there_is_unavailable() -> None:
    settings = BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0")
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        functions.init(settings)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (redis.ResponseError("LOADING Redis is loading"), BrokerUnavailable),
        (redis.ResponseError("OOM command not allowed"), BrokerUnavailable),
        (redis.ResponseError("MISCONF errors writing to disk"), BrokerUnavailable),
        (redis.ResponseError("NOPERM no permission"), BrokerMisconfigured),
        (redis.ResponseError("ERR wrong number of arguments"), BrokerMisconfigured),
        (redis.AuthenticationError("WRONGPASS"), BrokerMisconfigured),
        (redis.BusyLoadingError("LOADING"), BrokerUnavailable),
        (ConnectionResetError("reset"), BrokerUnavailable),
        (TimeoutError(), BrokerUnavailable),
    ],
)
def test_redis_errors_become_the_brokers(error: Exception, kind: type[Exception]) -> None:
    assert type(translated(error)) is kind
    with pytest.raises(kind), reaching_redis():
        raise error


def test_files_of_tls_without_tls_are_not_ignored(tmp_path) -> None:
    (tmp_path / "ca.pem").write_text("")
    settings = BrokerSettings(redis_ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(BrokerMisconfigured, match=r"--redis-ca-file is for TLS.*rediss://"):
        connect(settings)
    with pytest.raises(BrokerMisconfigured, match=r"--redis-ca-file .*none.pem cannot be read"):
        connect(BrokerSettings("rediss://h:1/0", redis_ca_file=str(tmp_path / "none.pem")))
    with pytest.raises(ValueError, match="belong together"):
        BrokerSettings("rediss://h:1/0", redis_cert_file=str(tmp_path / "ca.pem"))


def test_the_user_goes_with_the_password_file(tmp_path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    for url, extra in (
        ("redis://h:1/0", {"redis_user": "me"}),
        ("redis://me@h:1/0", {}),
        ("redis+sentinel://h:1/mymaster", {"redis_user": "me"}),
        ("redis+sentinel://me@h:1/mymaster", {}),
    ):
        password_file = str(tmp_path / "password")
        client = connect(BrokerSettings(url, redis_password_file=password_file, **extra))
        told = client.connection_pool.connection_kwargs
        assert (told["username"], told["password"]) == ("me", "s3cret"), url
        client.close()


def test_a_write_to_a_connection_that_uvloop_has_closed_finds_redis_away(
    redis_server: RedisServer,
) -> None:
    class Closed:
        """A client whose connection is cut between two commands."""

        def pipeline(self, transaction: bool) -> "Closed":
            return self

        def execute_command(self, *command: str) -> None:
            pass

        async def execute(self, raise_on_error: bool) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
            writer.transport.abort()
            await asyncio.sleep(0)
            writer.write(b"PING\r\n")

    async def call() -> None:
        with reaching_redis():
            await Closed().execute(raise_on_error=False)

    async def call_in_a_pipeline() -> None:
        await Coalescer(Closed(), 1.0).execute("PING")

    with pytest.raises(BrokerUnavailable):
        uvloop.run(call())
    with pytest.raises(redis.ConnectionError):  # which the callers try once more
        uvloop.run(call_in_a_pipeline())
