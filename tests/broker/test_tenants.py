"""Keys as the operator makes them, quotas, and who may be served without any."""

import hashlib
import hmac
from pathlib import Path

import pytest

from broker.errors import BrokerMisconfigured, BrokerUnavailable
from broker.keys import TENANT_KEYS, TENANT_QUOTAS
from broker.settings import BrokerSettings
from broker.tenants import (
    KeySettings,
    Quota,
    Tenants,
    check_exposure,
    digest,
    key_id,
    only_here,
    read_secret,
)
from tests.redis_server import RedisServer, closed_port

SECRET = b"s" * 40


def test_a_key_is_stored_as_a_keyed_hash_alone(
    broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    with Tenants(broker_settings) as tenants:
        key = tenants.create(SECRET, "acme", "the build server")
        (identity,) = tenants.keys()
        entry = tenants.keys()[identity]
    assert key.startswith(f"dgm_{identity}_")
    assert key_id(key) == identity
    assert entry.digest == hmac.new(SECRET, key.encode(), hashlib.sha256).hexdigest()
    assert (entry.tenant, entry.note) == ("acme", "the build server")
    stored = redis_server.client.hget(TENANT_KEYS, identity).decode()
    assert key.rpartition(f"{identity}_")[2] not in stored
    assert SECRET.decode() not in stored


def test_two_keys_differ_and_each_can_be_revoked(broker_settings: BrokerSettings) -> None:
    with Tenants(broker_settings) as tenants:
        first, second = tenants.create(SECRET, "acme"), tenants.create(SECRET, "acme")
        assert digest(SECRET, first) != digest(SECRET, second)
        identity = key_id(first)
        assert identity is not None
        assert tenants.revoke(f"dgm_{identity}")
        assert not tenants.revoke(identity)
        assert list(tenants.keys()) == [key_id(second)]
        with pytest.raises(ValueError, match="by its id"):
            tenants.revoke("acme")


@pytest.mark.parametrize(
    "text",
    ["", "dgm_", "dgm_0123456789ab_short", "DGM_0123456789ab_" + "x" * 43,
     "dgm_0123456789AB_" + "x" * 43, "dgm_0123456789ab_" + "x" * 44,
     "dgm_0123456789ab_" + "x" * 43 + "\n"],
)  # fmt: skip
def test_what_no_key_can_be(text: str) -> None:
    assert key_id(text) is None


@pytest.mark.parametrize("tenant", ["", "a b", "a:b", "a" * 65, "ü", "a\n", "{0}"])
def test_names_that_could_leave_their_place_are_refused(
    broker_settings: BrokerSettings, tenant: str
) -> None:
    with Tenants(broker_settings) as tenants:
        for call in (
            lambda: tenants.create(SECRET, tenant),
            lambda: tenants.quota(tenant),
            lambda: tenants.set_quota(tenant, Quota(weight=2)),
        ):
            with pytest.raises(ValueError, match="1 to 64 letters"):
                call()


@pytest.mark.parametrize("note", ["x" * 201, "two\nlines"])
def test_a_note_fits_a_line(broker_settings: BrokerSettings, note: str) -> None:
    with Tenants(broker_settings) as tenants, pytest.raises(ValueError, match="printable"):
        tenants.create(SECRET, "acme", note)


def test_a_quota_is_kept_and_taken_away(
    broker_settings: BrokerSettings, redis_server: RedisServer
) -> None:
    with Tenants(broker_settings) as tenants:
        assert tenants.quota("acme") == Quota()
        given = Quota(requests_per_s=0.5, chars_per_minute=1000, outstanding_chars=9, weight=3)
        tenants.set_quota("acme", given)
        assert tenants.quota("acme") == given
        assert tenants.quota("other") == Quota()
        tenants.set_quota("acme", Quota())
    assert not redis_server.client.exists(TENANT_QUOTAS)


@pytest.mark.parametrize(
    "values",
    [{"requests_per_s": -1}, {"chars_per_minute": -1}, {"outstanding_chars": -1}, {"weight": 0},
     {"weight": 1001}, {"requests_per_s": float("nan")}, {"requests_per_s": float("inf")}],
)  # fmt: skip
def test_a_quota_that_means_nothing_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Quota(**values)  # type: ignore[arg-type]


def test_redis_away_is_said() -> None:
    settings = BrokerSettings(redis_url=f"redis://127.0.0.1:{closed_port()}/0")
    with Tenants(settings) as tenants, pytest.raises(BrokerUnavailable):
        tenants.keys()


def test_the_secret_is_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("x" * 32 + "  \nwhatever\n")
    assert read_secret(str(file)) == b"x" * 32


@pytest.mark.parametrize("content", [b"", b"hunter2-hunter2\n", b"\xff\xfe" * 40])
def test_a_poor_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(BrokerMisconfigured, match="openssl rand") as error:
        read_secret(str(file))
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_missing_secret_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerMisconfigured, match="No such file"):
        read_secret(str(tmp_path / "none"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.3.2.1"])
def test_this_machine_alone_needs_no_keys(host: str) -> None:
    assert only_here(host)
    check_exposure(host, KeySettings())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.7", "no.such.host.invalid"])
def test_an_open_address_needs_keys_or_the_word(host: str) -> None:
    with pytest.raises(BrokerMisconfigured, match=r"--key-secret-file.*--insecure"):
        check_exposure(host, KeySettings())
    check_exposure(host, KeySettings(insecure=True))
    check_exposure(host, KeySettings(key_secret_file="secret"))
