"""The policy that every rendered set of manifests keeps."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import pytest

from api.metrics import Metrics
from api.shelf import EXAMINED_AT_ONCE
from broker import users
from broker.document_settings import DocumentSettings
from broker.keys import Keys
from broker.wire import LANES, Load
from tests.deployment import rendered, settings, tools
from tests.deployment.rendered import Manifest

SCHEMAS = ("1.33", "1.37")
CUSTOM = {"ScaledObject"}  # no schema of Kubernetes' own
# Secrets that a person makes, as docs/deployment.md says.
BY_HAND = {
    "dragoman-redis": {f"{name}.password" for name in users.USERS} | {users.ACL_FILE},
    "dragoman-keys": {"secret"},
}
SECRET_FILES = ("_PASSWORD_FILE", "_SECRET_FILE")
TIERS = set(settings.TIERS)
UNITS = {"m": 1e-3, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

pytestmark = pytest.mark.parametrize("name", rendered.NAMES)


def of_kind(name: str, *kinds: str) -> list[Manifest]:
    return [document for document in rendered.documents(name) if document["kind"] in kinds]


def workloads(name: str) -> list[Manifest]:
    return of_kind(name, "Deployment", "StatefulSet")


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Manifest) -> list[Manifest]:
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


def title(document: Manifest) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def matches(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        expression["operator"] == "In" and labels.get(expression["key"]) in expression["values"]
        for expression in selector.get("matchExpressions", [])
    )


def selected(name: str, selector: Manifest) -> list[Manifest]:
    return [
        workload
        for workload in workloads(name)
        if matches(selector, workload["spec"]["template"]["metadata"]["labels"])
    ]


def environment(name: str, container: Manifest) -> dict[str, str]:
    """What a container finds in its environment, as its manifest says."""
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        values |= config_map(name, source["configMapRef"]["name"])["data"]
    return values | {item["name"]: item["value"] for item in container.get("env", [])}


def config_map(name: str, wanted: str) -> Manifest:
    (found,) = (m for m in of_kind(name, "ConfigMap") if m["metadata"]["name"] == wanted)
    return found


def amount(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi|)", str(text))
    assert found, f"unknown amount {text}"
    return float(found[1]) * UNITS[found[2]]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    else:
        yield str(value)


def test_every_tier_is_there_once_and_in_the_namespace(name: str) -> None:
    assert {m["metadata"]["name"] for m in of_kind(name, "Deployment")} >= TIERS
    titles = [title(document) for document in rendered.documents(name)]
    assert len(titles) == len(set(titles))
    for document in rendered.documents(name):
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == "dragoman", title(document)


@pytest.mark.parametrize("version", SCHEMAS)
def test_the_schemas_of_kubernetes_are_kept(name: str, version: str) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="the Python package kubernetes-validate is not installed"
    )
    for document in rendered.documents(name):
        if document["kind"] not in CUSTOM:
            validator.validate(document, version, strict=True)


def test_selectors_match_labels(name: str) -> None:
    for workload in workloads(name):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert matches(workload["spec"]["selector"], labels), title(workload)
    for service in of_kind(name, "Service"):
        assert len(selected(name, {"matchLabels": service["spec"]["selector"]})) == 1
    for budget in of_kind(name, "PodDisruptionBudget"):
        assert len(selected(name, budget["spec"]["selector"])) == 1, title(budget)
    for policy in of_kind(name, "NetworkPolicy"):
        assert selected(name, policy["spec"]["podSelector"]), title(policy)
        for rule in policy["spec"].get("ingress", []):
            for peer in rule.get("from", []):
                assert selected(name, peer["podSelector"]), title(policy)


def test_ports_resolve(name: str) -> None:
    for service in of_kind(name, "Service"):
        (workload,) = selected(name, {"matchLabels": service["spec"]["selector"]})
        open_ports = {p["name"] for c in containers(workload) for p in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
    for policy in of_kind(name, "NetworkPolicy"):
        for workload in selected(name, policy["spec"]["podSelector"]):
            numbers = {p["containerPort"] for c in containers(workload) for p in c.get("ports", [])}
            for rule in policy["spec"].get("ingress", []):
                assert {port["port"] for port in rule["ports"]} <= numbers, title(policy)
    for workload in workloads(name):
        for container in containers(workload):
            open_ports = {port["name"] for port in container.get("ports", [])}
            for probe in probes(container):
                for kind in ("httpGet", "tcpSocket"):
                    assert {probe[kind]["port"]} <= open_ports if kind in probe else True


def probes(container: Manifest) -> list[Manifest]:
    return [value for key, value in container.items() if key.endswith("Probe")]


def test_the_api_listens_where_it_is_looked_for(name: str) -> None:
    (service,) = (m for m in of_kind(name, "Service") if m["metadata"]["name"] == "dragoman-api")
    assert [port["port"] for port in service["spec"]["ports"]] == [9527]
    (workload,) = selected(name, {"matchLabels": service["spec"]["selector"]})
    (container,) = containers(workload)
    _, api, _, _ = settings.read("dragoman-api", environment(name, container))
    assert [port["containerPort"] for port in container["ports"]] == [api.port]


def test_every_probe_of_ours_runs_a_module_that_exists(name: str) -> None:
    for workload in workloads(name):
        for container in containers(workload):
            for probe in probes(container):
                command = probe.get("exec", {}).get("command", [])
                if command[:2] == ["python", "-m"]:
                    assert find_spec(command[2]), command
    for tier in TIERS:
        (workload,) = (m for m in workloads(name) if m["metadata"]["name"] == tier)
        assert "readinessProbe" in pod(workload)["containers"][0], tier


def test_volumes_resolve(name: str) -> None:
    for workload in workloads(name):
        claims = workload["spec"].get("volumeClaimTemplates", [])
        there = {volume["name"] for volume in pod(workload).get("volumes", [])}
        there |= {claim["metadata"]["name"] for claim in claims}
        used = {m["name"] for c in containers(workload) for m in c.get("volumeMounts", [])}
        assert used == there, title(workload)


def test_configuration_and_secrets_resolve(name: str) -> None:
    documentation = (tools.ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    for workload in workloads(name):
        for container in containers(workload):
            environment(name, container)
        for volume in pod(workload).get("volumes", []):
            if secret := volume.get("secret"):
                assert secret["secretName"] in BY_HAND
                assert f"create secret generic {secret['secretName']}" in documentation


def test_every_secret_file_lies_in_a_mounted_secret(name: str) -> None:
    for workload in workloads(name):
        for container in pod(workload)["containers"]:
            for variable, path in environment(name, container).items():
                if not variable.endswith(SECRET_FILES):
                    continue
                folder, _, key = path.rpartition("/")
                (mount,) = (m for m in container["volumeMounts"] if m["mountPath"] == folder)
                (volume,) = (v for v in pod(workload)["volumes"] if v["name"] == mount["name"])
                secret = volume["secret"]
                assert key in BY_HAND[secret["secretName"]]
                assert "items" not in secret or key in {item["key"] for item in secret["items"]}


def test_a_pod_holds_the_passwords_of_its_own_tier(name: str) -> None:
    for workload in workloads(name):
        for volume in pod(workload).get("volumes", []):
            held = {item["key"] for item in volume.get("secret", {}).get("items", [])}
            tier = workload["metadata"]["name"].removeprefix("dragoman-")
            assert held <= {f"{tier}.password", "rq.password"}
            assert not held or pod(workload)["securityContext"]["fsGroup"] == 10001  # may read it


def test_the_api_asks_for_keys_or_is_said_to_be_open(name: str) -> None:
    (api,) = (w for w in workloads(name) if w["metadata"]["name"] == "dragoman-api")
    (container,) = pod(api)["containers"]
    values = environment(name, container)
    assert settings.starts(values)
    assert ("DRAGOMAN_INSECURE" in values) != ("DRAGOMAN_KEY_SECRET_FILE" in values)


def owners(name: str, workload: Manifest) -> list[str]:
    """Who sets the number of replicas of a workload."""
    found = ["spec.replicas"] if "replicas" in workload["spec"] else []
    for scaler in of_kind(name, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (workload["kind"], workload["metadata"]["name"]):
            found.append(title(scaler))
    return found


def test_replicas_have_exactly_one_owner(name: str) -> None:
    for workload in workloads(name):
        assert len(owners(name, workload)) == 1, f"{title(workload)}: {owners(name, workload)}"


def test_scalers_are_bounded_and_have_a_target(name: str) -> None:
    there = {m["metadata"]["name"] for m in of_kind(name, "Deployment")}
    for scaler in of_kind(name, "HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] in there
        assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 2)
        for metric in spec["metrics"]:
            (target,) = (m["target"] for m in metric.values() if isinstance(m, dict))
            assert target.get("averageUtilization") == 80 or target.get("averageValue") == "80"
    for scaler in of_kind(name, "ScaledObject"):
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] in there
        assert 0 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]


def test_keda_reads_metrics_that_the_api_serves(name: str) -> None:
    load = Load(
        outstanding_cost=1,
        cost_by_lane=dict.fromkeys(LANES, 1),
        drain_rate=1.0,
        ready=1,
        backlog=1,
        workers=1,
        dead_letters=0,
    )
    served = set(re.findall(r"^(\w+) ", Metrics().render(load).decode(), re.MULTILINE))
    services = {
        f"{s['metadata']['name']}.{s['metadata']['namespace']}.svc:{p['port']}"
        for s in of_kind(name, "Service")
        for p in s["spec"]["ports"]
    }
    for scaler in of_kind(name, "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            assert trigger["type"] == "metrics-api"
            metadata = trigger["metadata"]
            assert metadata["format"] == "prometheus"
            assert metadata["valueLocation"] in served
            url = urlsplit(metadata["url"])
            assert url.netloc in services
            assert url.path == "/metrics"
            assert all(isinstance(value, str) for value in metadata.values())


def test_a_pod_can_be_evicted(name: str) -> None:
    guarded = set()
    for budget in of_kind(name, "PodDisruptionBudget"):
        spec = budget["spec"]
        assert spec.get("maxUnavailable", 0) >= 1
        assert "minAvailable" not in spec
        guarded |= {workload["metadata"]["name"] for workload in selected(name, spec["selector"])}
    assert guarded >= TIERS


def test_there_is_time_to_drain(name: str) -> None:
    for workload in workloads(name):
        tier = workload["metadata"]["name"]
        if tier not in TIERS:
            continue
        (container,) = pod(workload)["containers"]
        stop = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        wait_s = float(stop[1]) if stop else 0.0
        drain_s = settings.drain_s(tier, environment(name, container))
        assert pod(workload)["terminationGracePeriodSeconds"] > drain_s + wait_s, tier


def test_settings_exist_and_fit(name: str) -> None:
    models = set()
    for workload in workloads(name):
        for container in containers(workload):
            values = environment(name, container)
            assert set(values) <= settings.VARIABLES, title(workload)
            if workload["metadata"]["name"] in TIERS:
                settings.read(workload["metadata"]["name"], values)
                models.add(values["DRAGOMAN_MODEL"])
    assert len(models) == 1


def test_keys_are_those_of_the_code(name: str) -> None:
    keys = Keys("0")
    known = {keys.queue("small", lane) for lane in LANES} | {keys.load(), keys.dead()}
    for document in rendered.documents(name):
        for text in strings(document):
            assert set(re.findall(r"dragoman:\{[^\s\"']+", text)) <= known


def test_pods_are_restricted(name: str) -> None:
    for workload in workloads(name):
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, title(workload)


def test_requests_stay_within_limits(name: str) -> None:
    for workload in workloads(name):
        for container in containers(workload):
            resources = container["resources"]
            for kind in ("cpu", "memory"):
                assert amount(resources["requests"][kind]) <= amount(resources["limits"][kind])


@pytest.mark.parametrize(
    ("tier", "at_once"), [("dragoman-api", EXAMINED_AT_ONCE), ("dragoman-documents", 1)]
)
def test_there_is_memory_to_take_documents_apart(name: str, tier: str, at_once: int) -> None:
    (workload,) = (w for w in workloads(name) if w["metadata"]["name"] == tier)
    (container,) = pod(workload)["containers"]
    read = settings.read(tier, environment(name, container))
    (documents,) = (made for made in read if isinstance(made, DocumentSettings))
    resources = container["resources"]
    own = amount(resources["requests"]["memory"])
    apart = at_once * documents.parse_memory_mib * 2**20
    assert amount(resources["limits"]["memory"]) >= own + apart


def test_the_device_plugin_alone_decides_about_gpus(name: str) -> None:
    for document in rendered.documents(name):
        assert "NVIDIA_VISIBLE_DEVICES" not in set(strings(document))
    gpus = [
        container
        for workload in workloads(name)
        for container in containers(workload)
        if "nvidia.com/gpu" in container["resources"]["limits"]
    ]
    assert bool(gpus) is ("gpu" in name)
    for container in gpus:
        assert environment(name, container)["DRAGOMAN_DEVICE"] == "cuda"


def test_redis_keeps_accepted_work(name: str) -> None:
    for workload in of_kind(name, "StatefulSet"):
        (container,) = containers(workload)
        arguments = container["args"]
        for flag, value in (("--appendonly", "yes"), ("--maxmemory-policy", "noeviction")):
            assert arguments[arguments.index(flag) + 1] == value


def test_an_init_container_pulls_the_model_that_is_served(name: str) -> None:
    for workload in workloads(name):
        for container in pod(workload).get("initContainers", []):
            (worker,) = pod(workload)["containers"]
            # Pulling takes PyTorch, which the worker's image for CPUs has not.
            assert re.search(r"(^dragoman-weights|-cuda)$", container["image"])
            assert container["args"] == ["pull", "$(DRAGOMAN_MODEL)"]
            assert "/" in environment(name, worker)["DRAGOMAN_MODEL"]
            (pulled,) = (m for m in container["volumeMounts"] if m["mountPath"] == "/models")
            assert pulled in worker["volumeMounts"]
