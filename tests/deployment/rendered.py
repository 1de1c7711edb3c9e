"""The manifests as a cluster gets them. ``python -m tests.deployment.rendered`` writes
k8s/deployment.yaml from the dev overlay (``make k8s``)."""

import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deployment import tools

K8S = tools.ROOT / "k8s"
PLAIN = K8S / "deployment.yaml"
HEADER = (
    "# The whole service with a Redis of its own, for a cluster of one's own:\n"
    "#   kubectl apply -f k8s/deployment.yaml\n"
    "# Rendered from k8s/overlays/dev by `make k8s`; change it there.\n"
)
OVERLAYS = ("dev", "prod-cpu", "prod-gpu")
# What an overlay may combine, beyond the overlays that there are.
COMBINATIONS = {
    "gpu by HPA": ("redis", "open", "gpu", "autoscale-hpa", "autoscale-hpa/gpu"),
    "bundled model by KEDA": ("redis", "open", "autoscale-keda"),
    "weights, fixed": ("redis", "keys", "weights", "fixed-replicas"),
    "gpu without weights": ("redis-external", "keys", "gpu", "fixed-replicas"),
}
NAMES = ("deployment.yaml", *OVERLAYS, *COMBINATIONS)

Manifest = dict[str, Any]


@cache
def documents(name: str) -> list[Manifest]:
    """The manifests of an overlay, a combination of components, or the plain file. Not to be
    changed: all tests share them."""
    if name == "deployment.yaml":
        text = PLAIN.read_text(encoding="utf-8")
    elif name in OVERLAYS:
        text = kustomize(str(K8S / "overlays" / name))
    else:
        text = _combined(name)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document]


def _combined(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "dragoman",
            "resources": [os.path.relpath(K8S / "base", here)],
            "components": [
                os.path.relpath(K8S / "components" / component, here)
                for component in COMBINATIONS[name]
            ],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
        return kustomize(folder)


@cache
def kustomize(folder: str) -> str:
    """Skips the test where there is no kubectl."""
    return tools.run(tools.need("kubectl"), "kustomize", folder)


def plain() -> str:
    """What k8s/deployment.yaml must hold."""
    return HEADER + kustomize(str(K8S / "overlays" / "dev"))


if __name__ == "__main__":
    if not tools.find("kubectl"):
        sys.exit("kubectl is not installed: `make install-dev` brings it")
    PLAIN.write_text(plain(), encoding="utf-8")
