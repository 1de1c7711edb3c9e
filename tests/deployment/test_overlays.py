"""The kustomize sources, beyond what each rendering must keep."""

import re

from tests.deployment import rendered, tools


def test_the_plain_file_is_the_dev_overlay() -> None:
    there = rendered.PLAIN.read_text(encoding="utf-8")
    assert there == rendered.plain(), "k8s/deployment.yaml is not the dev overlay: run `make k8s`"


def test_the_base_leaves_replicas_to_an_overlay() -> None:
    for path in (rendered.K8S / "base").glob("*.yaml"):
        assert not re.search(r"^ *replicas:", path.read_text(encoding="utf-8"), re.M), path.name


def test_every_component_is_part_of_something_that_is_tested() -> None:
    used = "".join(
        (rendered.K8S / "overlays" / name / "kustomization.yaml").read_text(encoding="utf-8")
        for name in rendered.OVERLAYS
    )
    for path in (rendered.K8S / "components").iterdir():
        combined = any(path.name in names for names in rendered.COMBINATIONS.values())
        assert combined or f"components/{path.name}\n" in used, path.name
    assert sorted(path.name for path in (rendered.K8S / "overlays").iterdir()) == sorted(
        rendered.OVERLAYS
    )


def test_compose_and_kubernetes_run_the_same_redis() -> None:
    compose = (tools.ROOT / "compose.yaml").read_text(encoding="utf-8")
    (redis,) = (m for m in rendered.documents("deployment.yaml") if m["kind"] == "StatefulSet")
    image = redis["spec"]["template"]["spec"]["containers"][0]["image"]
    assert f":-{image}}}" in compose
