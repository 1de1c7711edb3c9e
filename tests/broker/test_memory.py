"""The translation memory on real servers: what it keeps, for whom, how much, what it survives."""

import logging
import threading
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import pytest

from broker import memory as memory_module
from broker.errors import BrokerUnavailable
from broker.keys import Keys, shard_keys
from broker.memory import MOST_NAMES, Memory, Name
from broker.settings import BrokerSettings
from tests.conftest import settings_for
from tests.redis_server import RedisServer, closed_port

KEYS = Keys("0")


def named(text: str, tenant: str = "default") -> Name:
    return Name(tenant, blake2b(text.encode(), digest_size=16).hexdigest())


def of(*texts: str, tenant: str = "default") -> dict[Name, str]:
    """Translations: every text turned around."""
    return {named(text, tenant): text[::-1] for text in texts}


@pytest.fixture
def memory(broker_settings: BrokerSettings) -> Iterator[Memory]:
    made = Memory(broker_settings)
    yield made
    made.close()


def made(server: RedisServer, **changes: Any) -> Memory:
    return Memory(settings_for(server, **changes))


def test_what_was_kept_is_found_byte_for_byte(memory: Memory) -> None:
    translations = of("one", "ein\nanderer Satz", "日本語 👩‍👩‍👧", " \u0000\u2028", "x" * 20_000)
    memory.keep(translations)
    assert memory.find(translations) == translations
    assert memory.find([named("other"), *translations]) == translations


def test_nothing_asked_nothing_told(memory: Memory, redis_server: RedisServer) -> None:
    memory.keep({})
    assert memory.find([]) == {}
    assert redis_server.client.dbsize() == 0


def test_tenants_never_share(memory: Memory) -> None:
    memory.keep(of("one", tenant="a"))
    assert memory.find(of("one", tenant="b")) == {}
    assert memory.find(of("one", tenant="a"))
    memory.keep({named("one", "b"): "other"})
    assert memory.find([named("one", "a"), named("one", "b")]) == {
        named("one", "a"): "eno",
        named("one", "b"): "other",
    }


def test_every_key_has_a_ttl(memory: Memory, redis_server: RedisServer) -> None:
    memory.keep(of("one", "two") | of("three", tenant="b"))
    ttls = {key.decode(): redis_server.client.ttl(key) for key in redis_server.client.keys("*")}
    assert len(ttls) == 5
    assert all(86_390 <= ttl <= 86_400 for ttl in ttls.values())


def test_what_is_too_old_is_forgotten(redis_server: RedisServer, wait_until: Any) -> None:
    memory = made(redis_server, memory_ttl_s=1)
    memory.keep(of("one"))
    wait_until(lambda: not memory.find(of("one")), description="the translation is forgotten")
    assert not memory.find(of("one"))
    memory.close()


def test_the_oldest_go_where_a_tenant_has_too_many(redis_server: RedisServer) -> None:
    memory = made(redis_server, memory_sentences=100)
    memory.keep(of("mine", tenant="b"))
    for start in range(0, 400, 20):
        memory.keep(of(*(f"text {at}" for at in range(start, start + 20))))
        assert redis_server.client.zcard(KEYS.memory_index("default")) <= 100
    held = redis_server.client.keys(KEYS.memory("default", "?" * 32))
    assert 90 <= len(held) <= 100
    assert len(memory.find(of(*(f"text {at}" for at in range(320, 400))))) == 80
    assert memory.find(of(*(f"text {at}" for at in range(200)))) == {}
    assert memory.find(of("mine", tenant="b"))
    memory.close()


def test_a_lower_limit_is_reached_by_and_by(redis_server: RedisServer) -> None:
    generous, thrifty = made(redis_server), made(redis_server, memory_sentences=10)
    generous.keep(of(*(f"text {at}" for at in range(3_000))))
    for at in range(4):
        thrifty.keep(of(f"more {at}"))
    assert redis_server.client.zcard(KEYS.memory_index("default")) <= 10
    generous.close()
    thrifty.close()


def test_many_at_once_go_in_several_calls(memory: Memory, redis_server: RedisServer) -> None:
    translations = of(*(f"text {at}" for at in range(2 * MOST_NAMES + 1)))
    memory.keep(translations)
    redis_server.client.config_resetstat()
    assert memory.find(translations) == translations
    assert redis_server.client.info("commandstats")["cmdstat_mget"]["calls"] == 3


def test_every_shard_has_its_part(redis_server: RedisServer) -> None:
    memory = made(redis_server, shards=4, memory_sentences=400)
    translations = of(*(f"text {at}" for at in range(80)))
    memory.keep(translations)
    assert memory.find(translations) == translations
    parts = [redis_server.client.zcard(keys.memory_index("default")) for keys in shard_keys(4)]
    assert sum(parts) == 80
    assert all(parts)
    assert memory.forget("default") == 80
    memory.close()


# ── What may happen to it ─────────────────────────────────────────────────────────────────────


def test_evicted_foreign_and_broken_values_count_as_none(
    memory: Memory, redis_server: RedisServer
) -> None:
    texts = of("kept", "evicted", "wrong type", "no text")
    memory.keep(texts)
    client = redis_server.client
    client.delete(KEYS.memory(*named("evicted")))
    client.delete(KEYS.memory(*named("wrong type")))
    client.rpush(KEYS.memory(*named("wrong type")), "x")
    client.pexpire(KEYS.memory(*named("wrong type")), 60_000)
    client.set(KEYS.memory(*named("no text")), b"\xff\xfe", px=60_000)
    assert memory.find(texts) == of("kept")
    memory.keep(texts)
    assert memory.find(texts) == texts  # what was wrong is overwritten


def test_an_index_that_is_none_is_made_anew(
    memory: Memory, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.client.set(KEYS.memory_index("default"), "x", px=60_000)
    memory.keep(of("one") | of("two", tenant="b"))
    assert "going on without" in caplog.text
    memory.keep(of("one", "three"))
    assert redis_server.client.zcard(KEYS.memory_index("default")) == 2
    assert redis_server.client.zcard(KEYS.memory_index("b")) == 1


def test_redis_away_is_told_once_and_costs_nothing_but_the_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = RedisServer().start()
    memory = made(server)
    memory.keep(of("one"))
    server.kill()
    assert memory.find(of("one")) == {}
    memory.keep(of("two"))
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    server.start()
    memory.keep(of("two"))
    assert memory.find(of("one", "two")) == of("two")
    memory.close()
    server.stop()


def test_forgetting_says_when_redis_is_away() -> None:
    memory = Memory(BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0"))
    with pytest.raises(BrokerUnavailable):
        memory.forget("default")
    memory.close()


def test_a_server_without_memory_left_refuses_and_nothing_breaks(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    memory = made(redis_server)
    memory.keep(of("one"))  # looked: there was memory left
    redis_server.client.config_set("maxmemory", 1)
    try:
        memory.keep(of("two"))
        assert "going on without" in caplog.text
        assert memory.find(of("one", "two")) == of("one")
    finally:
        redis_server.client.config_set("maxmemory", 0)
    memory.close()


def test_nothing_is_added_to_a_server_that_is_nearly_full(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory_module, "LOOK_S", 0.0)
    memory = made(redis_server)
    used = redis_server.client.info("memory")["used_memory"]
    try:
        redis_server.client.config_set("maxmemory", int(used * 1.2))
        memory.keep(of("one"))
        memory.keep(of("one"))
        assert caplog.text.count("nothing is added") == 1
        assert memory.find(of("one")) == {}
        redis_server.client.config_set("maxmemory", used * 100)
        memory.keep(of("one"))
        assert memory.find(of("one"))
    finally:
        redis_server.client.config_set("maxmemory", 0)
    memory.close()


def test_forgetting_a_tenant_leaves_the_others(memory: Memory, redis_server: RedisServer) -> None:
    memory.keep(of(*(f"text {at}" for at in range(1_200)), tenant="a"))
    memory.keep(of("one", tenant="b"))
    assert memory.forget("a") == 1_200
    assert memory.forget("a") == 0
    assert sorted(key.decode() for key in redis_server.client.keys("*")) == sorted(
        [KEYS.memory(*named("one", "b")), KEYS.memory_index("b")]
    )


def test_from_several_threads(memory: Memory) -> None:
    wrong: list[str] = []

    def use(tenant: str) -> None:
        for at in range(30):
            mine = of(f"text {at}", f"more {at}", tenant=tenant)
            memory.keep(mine)
            if memory.find(mine) != mine:
                wrong.append(tenant)

    threads = [threading.Thread(target=use, args=(tenant,)) for tenant in ("a", "b", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


@pytest.mark.parametrize("name", ["memory_ttl_s", "memory_sentences"])
def test_settings_that_do_not_fit(name: str) -> None:
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} must be above 0"):
        BrokerSettings(**{name: 0})
