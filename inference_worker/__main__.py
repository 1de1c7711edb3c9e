"""The ``dragoman-worker`` command: serves a checkpoint, or with ``pull NAME`` fetches one."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from broker import functions, logs
from broker.errors import BrokerError
from broker.options import option, parse
from broker.settings import BrokerSettings
from broker.stopping import stop_at_once
from inference_worker.checkpoint import CheckpointError, find
from inference_worker.decoding import EngineBroken
from inference_worker.hang import Watchdog
from inference_worker.serve import patiently, serve
from inference_worker.settings import CACHE_DIR, DeviceError, WorkerSettings
from inference_worker.tokens import VocabularyError

PROGRAM = "dragoman-worker"


@dataclass(frozen=True)
class PullSettings:
    """Settings of ``dragoman-worker pull``."""

    cache_dir: str = option(CACHE_DIR, "Where pulled checkpoints are kept.")
    revision: str = option("", "Branch, tag or commit; without it, the hub's default.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; the exit status tells how it went: 0, 1 for an error, 2 for bad usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logs.configure("info")
    stop_at_once()
    try:
        if arguments[:1] == ["pull"]:
            _pull(arguments[1:])
        else:
            _serve(arguments)
    except (BrokerError, CheckpointError, DeviceError, VocabularyError, EngineBroken) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    return 0


def _pull(arguments: list[str]) -> None:
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else ""
    (settings,) = parse(
        [PullSettings],
        arguments,
        os.environ,
        program=f"{PROGRAM} pull NAME",
        description="Fetches a checkpoint from the hub, converts its weights, pins its revision.",
    )
    if not name:
        raise CheckpointError("name what to pull, such as facebook/m2m100_418M")
    from inference_worker.pull import pull  # torch takes seconds: usage errors come first

    checkpoint = pull(name, settings.revision, Path(settings.cache_dir).expanduser())
    print(f"{checkpoint.name} at {checkpoint.revision} in {checkpoint.folder}")


def _serve(arguments: list[str]) -> None:
    broker_settings, settings = parse(
        [BrokerSettings, WorkerSettings],
        arguments,
        os.environ,
        program=PROGRAM,
        description="Translates what the API accepts. `dragoman-worker pull NAME` fetches a model.",
    )
    stand_back(settings.nice)
    checkpoint = find(settings.model, Path(settings.cache_dir).expanduser())
    patiently(lambda: functions.init(broker_settings), settings.connect_s)
    from inference_worker.loading import load  # torch takes seconds: errors of setup come first

    watchdog = Watchdog(settings.hang_s)
    model, engine = load(checkpoint, settings, watchdog)
    serve(broker_settings, settings, model, engine, watchdog)


def stand_back(nice: int, autogroup: Path = Path("/proc/self/autogroup")) -> None:
    """Leaves the processors to others when they are short. Where Linux groups processes by session,
    as on desktops, niceness counts within a session alone, so that ours stands back as a whole."""
    os.nice(nice)
    if nice and os.getsid(0) == os.getpid():
        with suppress(OSError):
            autogroup.write_text(str(nice))


if __name__ == "__main__":
    sys.exit(main())
