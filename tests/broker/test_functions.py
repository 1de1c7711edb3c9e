import pytest
import redis

from broker import functions
from broker.connection import connect
from broker.errors import BrokerMisconfigured
from broker.settings import BrokerSettings
from tests.conftest import settings_for
from tests.redis_server import RedisServer


def test_init_loads_the_library_once(redis_server: RedisServer) -> None:
    redis_server.client.function_flush()
    settings = settings_for(redis_server)
    assert f"{functions.LIBRARY} revision {functions.revision()}" in functions.init(settings)[0]
    functions.init(settings)
    names = set(_function_names(redis_server))
    assert functions.name("submit") in names
    assert all(name.startswith(functions.LIBRARY) for name in names)


def _function_names(server: RedisServer) -> list[str]:
    library = server.client.execute_command("FUNCTION", "LIST")[0]
    fields = dict(zip(library[::2], library[1::2], strict=True))
    return [dict(zip(f[::2], f[1::2], strict=True))[b"name"].decode() for f in fields[b"functions"]]


def test_a_newer_revision_on_the_server_is_kept(redis_server: RedisServer) -> None:
    newer = functions.source().replace(
        f"local REVISION = {functions.revision()}", "local REVISION = 99"
    )
    redis_server.client.function_load(newer, replace=True)
    try:
        assert "revision 99" in functions.init(settings_for(redis_server))[0]
    finally:
        redis_server.client.function_flush()


def test_a_call_loads_the_library_that_the_server_has_lost(redis_server: RedisServer) -> None:
    redis_server.client.function_flush()
    client = connect(settings_for(redis_server))
    assert functions.call(client, "keep", ["dragoman:{0}:request:default:x"]) == 0
    client.close()


def test_a_user_without_function_rights_is_told_what_to_run(redis_server: RedisServer) -> None:
    redis_server.client.function_flush()
    redis_server.client.execute_command(
        "ACL", "SETUSER", "thin", "on", ">thin", "~dragoman:*", "+@all", "-function"
    )
    url = redis_server.url.replace("//", "//thin:thin@")
    with pytest.raises(BrokerMisconfigured, match="dragoman broker init"):
        functions.init(BrokerSettings(redis_url=url))
    redis_server.client.execute_command("ACL", "DELUSER", "thin")


def test_an_evicting_server_is_refused(redis_server: RedisServer) -> None:
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(BrokerMisconfigured, match="maxmemory-policy noeviction"):
            functions.init(settings_for(redis_server))
    finally:
        redis_server.client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    "info", [{"redis_version": "6.2.14"}, {"valkey_version": "7.0.0", "redis_version": "7.2.4"}]
)
def test_an_old_server_is_refused(info: dict[str, str]) -> None:
    with pytest.raises(BrokerMisconfigured, match="too old"):
        functions.check_server(info)


def test_every_function_declares_the_keys_it_touches(redis_server: RedisServer) -> None:
    """A key name is never built inside the library: cluster and ACLs rely on KEYS."""
    assert "dragoman:" not in functions.source().replace("dragoman_v2", "")
    with pytest.raises(redis.ResponseError):
        redis_server.client.fcall("dragoman_v0_submit", 0)
