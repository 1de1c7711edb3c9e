"""What every command shares: lines on the two outputs, errors as one readable line, and the
broker's settings from flags and environment."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from broker import options
from broker.errors import BrokerError, BrokerUnavailable
from broker.settings import BrokerSettings
from dragoman import lines
from dragoman.errors import DragomanError, KeyRefused
from dragoman.supervisor import StackFailed

FAILED = 1


def say(line: str) -> None:
    print(line, flush=True)


def complain(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Ends the command with one readable message where a person can do something about it."""
    try:
        yield
    except (StackFailed, DragomanError, BrokerError, lines.Unusable) as error:
        message = str(error)
        for field, flag in (("payload.fromLang", "--from"), ("payload.toLang", "--to")):
            message = message.replace(field, flag)
        if hint := remedy(error):
            message = f"{message.rstrip('.')}. {hint}"
        complain(f"dragoman: {message}")
        raise typer.Exit(FAILED) from error


def remedy(error: Exception) -> str:
    """What to do about it on a command line, where the message itself cannot know that."""
    if isinstance(error, KeyRefused):
        return "Here: --key, or DRAGOMAN_API_KEY."
    if isinstance(error, BrokerUnavailable):
        return "Say where it is: --redis-url, or DRAGOMAN_REDIS_URL."
    return ""


def broker_settings(argv: list[str], program: str, description: str = "") -> BrokerSettings:
    """Ends the command where a value does not fit."""
    (settings,) = options.parse(
        [BrokerSettings], argv, os.environ, program=program, description=description
    )
    assert isinstance(settings, BrokerSettings)  # parse returns what it was given
    return settings
