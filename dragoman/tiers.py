"""How each tier is started: its console script and what it is told through the environment, where
passwords in a Redis URL stay out of the process list."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from dragoman.process import Command
from dragoman.settings import StackSettings
from dragoman.supervisor import StackFailed

KILL_AFTER_S = 10.0  # on top of the grace a tier has to end what it has begun

_EXTRAS = {
    "dragoman-api": "api",
    "dragoman-documents": "documents",
    "dragoman-worker": "cpu",
}


def program(name: str) -> str:
    """The console script of a tier: beside our interpreter, else on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise StackFailed(f"{name} is not installed: pip install 'dragoman[{_EXTRAS[name]}]'")
    return found


def api(settings: StackSettings, redis: Mapping[str, str]) -> Command:
    """One command: the tier looks after its own processes, which share a socket and their metrics.
    ``redis`` is how the tiers find Redis: environment variables."""
    return Command(
        name="api",
        argv=[program("dragoman-api")],
        ready_line="dragoman-api ready",
        ready_count=settings.api_processes,
        stop_within_s=settings.grace_s + KILL_AFTER_S,
        environ={
            **redis,
            "DRAGOMAN_HOST": settings.host,
            "DRAGOMAN_PORT": str(settings.port),
            "DRAGOMAN_PROCESSES": str(settings.api_processes),
            "DRAGOMAN_MODEL": settings.model,
            "DRAGOMAN_GRACE_S": str(settings.grace_s),
            "DRAGOMAN_KEY_SECRET_FILE": settings.key_secret_file,
            "DRAGOMAN_INSECURE": str(settings.insecure).lower(),
            "DRAGOMAN_DRAIN_S": "0",  # nobody takes over this port
            "DRAGOMAN_LOG_LEVEL": "info",  # the ready line is of this level
        },
    )


def workers(settings: StackSettings, redis: Mapping[str, str]) -> list[Command]:
    return [
        Command(
            name=f"worker-{number}",
            argv=[program("dragoman-worker")],
            ready_line="dragoman-worker ready",
            stop_within_s=settings.grace_s + KILL_AFTER_S,
            environ={
                **redis,
                "DRAGOMAN_MODEL": settings.model,
                "DRAGOMAN_DEVICE": settings.device,
                "DRAGOMAN_NICE": str(settings.nice),
                "DRAGOMAN_GRACE_S": str(settings.grace_s),
            },
        )
        for number in range(1, settings.workers + 1)
    ]


def documents(settings: StackSettings, redis: Mapping[str, str]) -> list[Command]:
    return [
        Command(
            name=f"documents-{number}",
            argv=[program("dragoman-documents")],
            ready_line="dragoman-documents ready",
            stop_within_s=settings.grace_s + KILL_AFTER_S,
            environ={**redis, "DRAGOMAN_LOG_LEVEL": "info"},  # the ready line is of this level
        )
        for number in range(1, settings.document_workers + 1)
    ]
