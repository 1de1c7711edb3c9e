"""The small runs of benchmarks, on machines that have other things to do."""

import pytest


@pytest.fixture(autouse=True)
def _patient_servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of a run gives a call up because the machine stands still for a second."""
    if request.node.get_closest_marker("slow"):
        monkeypatch.setenv("DRAGOMAN_REDIS_TIMEOUT_S", "20")
