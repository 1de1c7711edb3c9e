"""compose.yaml and what is laid over it: what Docker takes, and the policy they keep."""

import re
from typing import Any

import pytest
import yaml

from api.settings import ApiSettings
from broker import users
from tests.deployment import settings, tools

FILES = {
    "cpu": ("compose.yaml",),
    "gpu": ("compose.yaml", "compose.gpu.yaml"),
    "secure": ("compose.yaml", "compose.secure.yaml"),
    "secure gpu": ("compose.yaml", "compose.secure.yaml", "compose.gpu.yaml"),
}
SERVICES = {"api": "dragoman-api", "worker": "dragoman-worker", "documents": "dragoman-documents"}


def read(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((tools.ROOT / file).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = read("compose.yaml")["services"]
    return found


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_docker_compose_takes_the_files(files: tuple[str, ...]) -> None:
    command = [tools.need("docker-compose")]
    for file in files:
        command += ["--file", file]
    tools.run(*command, "config", "--quiet")


def test_a_tier_can_be_scaled(services: dict[str, Any]) -> None:
    for name in SERVICES:
        assert not {"container_name", "ports", "hostname"} & set(services[name]), name
    published = [name for name, service in services.items() if "ports" in service]
    assert published == ["lb"]
    assert services["lb"]["ports"] == ["${DRAGOMAN_PUBLISH:-127.0.0.1:9527}:9527"]


def test_there_is_time_to_drain(services: dict[str, Any]) -> None:
    for name, tier in SERVICES.items():
        found = re.fullmatch(r"(\d+)s", services[name]["stop_grace_period"])
        assert found
        assert int(found[1]) > settings.drain_s(tier, services[name]["environment"])


def test_a_tier_can_be_stopped_before_it_has_loaded(services: dict[str, Any]) -> None:
    assert all(services[name]["init"] is True for name in SERVICES)


def test_settings_exist_and_fit(services: dict[str, Any]) -> None:
    for name, tier in SERVICES.items():
        values = services[name]["environment"]
        assert set(values) <= settings.VARIABLES
        settings.read(tier, values)


def test_open_on_this_machine_alone(services: dict[str, Any]) -> None:
    assert settings.starts(services["api"]["environment"])
    assert services["lb"]["ports"][0].startswith("${DRAGOMAN_PUBLISH:-127.0.0.1:")


def test_secure_is_what_it_says(services: dict[str, Any]) -> None:
    secure = read("compose.secure.yaml")
    assert set(secure["secrets"]) == {
        "key-secret", users.ACL_FILE, *(f"{name}.password" for name in users.USERS),
    }  # fmt: skip
    environment = services["api"]["environment"] | secure["services"]["api"]["environment"]
    assert settings.starts(environment)
    assert environment["DRAGOMAN_INSECURE"] == "false"
    for name, tier in (SERVICES | {"init": "dragoman-api"}).items():
        service = secure["services"][name]
        assert set(service["environment"]) <= settings.VARIABLES
        settings.read(tier, service["environment"])
        files = {
            value.removeprefix("/run/secrets/")
            for variable, value in service["environment"].items()
            if variable.endswith("_FILE")
        }
        assert files == set(service["secrets"]), name
        user = {"init": "operator"}.get(name, name)
        assert service["environment"]["DRAGOMAN_REDIS_USER"] == f"dragoman-{user}"
        assert f"{user}.password" in files
    plain, guarded = services["redis"]["command"], secure["services"]["redis"]["command"]
    assert [
        part for part in guarded if part not in ("--aclfile", "/run/secrets/users.acl")
    ] == plain


def test_redis_keeps_accepted_work(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    for flag, value in (("--appendonly", "yes"), ("--maxmemory-policy", "noeviction")):
        assert command[command.index(flag) + 1] == value
    assert services["redis"]["volumes"] == ["redis:/data"]


def test_containers_are_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_gpu_is_asked_for_in_the_override_alone() -> None:
    text = (tools.ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert "nvidia" not in text.lower()
    override = read("compose.gpu.yaml")["services"]
    assert list(override) == ["worker"]
    (device,) = override["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert override["worker"]["build"]["args"]["DEVICE"] == "cuda"
    for file in FILES["gpu"]:
        assert "NVIDIA_VISIBLE_DEVICES" not in (tools.ROOT / file).read_text(encoding="utf-8")


def test_the_balancer_finds_every_api_container_and_outwaits_it() -> None:
    text = (tools.ROOT / "lb" / "haproxy.cfg").read_text(encoding="utf-8")
    assert re.search(r"server-template api- \d+ api:9527 resolvers docker init-addr none", text)
    for side in ("client", "server"):
        found = re.search(rf"timeout {side} (\d+)s", text)
        assert found
        assert int(found[1]) > ApiSettings.sync_wait_s


def test_haproxy_takes_the_configuration() -> None:
    tools.run(tools.need("haproxy"), "-c", "-f", "lb/haproxy.cfg")
