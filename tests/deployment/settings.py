"""What the tiers make of an environment: the check that deployments set what exists, and set it to
something that fits."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from api.settings import ApiSettings
from broker.document_settings import DocumentSettings
from broker.errors import BrokerMisconfigured
from broker.options import parse, variable
from broker.settings import BrokerSettings
from broker.tenants import KeySettings, check_exposure
from document_worker.settings import DocumentWorkerSettings
from inference_worker.settings import WorkerSettings

TIERS: dict[str, tuple[type[Any], ...]] = {
    "dragoman-api": (BrokerSettings, ApiSettings, DocumentSettings, KeySettings),
    "dragoman-worker": (BrokerSettings, WorkerSettings),
    "dragoman-documents": (BrokerSettings, DocumentSettings, DocumentWorkerSettings),
}
VARIABLES = {
    variable(field.name) for owners in TIERS.values() for owner in owners for field in fields(owner)
}


def read(tier: str, environ: Mapping[str, str]) -> list[Any]:
    """The settings a tier would run with; SystemExit if a value does not fit."""
    return parse(TIERS[tier], [], environ, program=tier, description="")


def starts(environ: Mapping[str, str]) -> bool:
    """Whether the API, on every interface as in its image, would start with this environment."""
    _, settings, _, keys = read("dragoman-api", {"DRAGOMAN_HOST": "0.0.0.0"} | dict(environ))
    try:
        check_exposure(settings.host, keys)
    except BrokerMisconfigured:
        return False
    return True


def drain_s(tier: str, environ: Mapping[str, str]) -> float:
    """How long a tier may take to stop."""
    return float(
        next((made.grace_s for made in read(tier, environ) if hasattr(made, "grace_s")), 0.0)
    )
