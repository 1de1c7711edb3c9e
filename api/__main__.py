"""``dragoman-api``: the HTTP tier on one port, in one process or several."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from api.process import bind, run
from api.settings import ApiSettings
from api.supervisor import Supervisor
from broker import functions, logs
from broker.document_settings import DocumentSettings
from broker.errors import BrokerError, BrokerUnavailable
from broker.options import parse
from broker.settings import BrokerSettings
from broker.stopping import stop_at_once
from broker.tenants import KeySettings, check_exposure, read_secret

log = logging.getLogger("dragoman.api")

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@contextmanager
def _metrics_directory(processes: int) -> Iterator[str]:
    """Where processes add up their metrics: set in the environment, which prometheus_client reads
    when it loads in each process, and made anew because old counts would be added in."""
    if given := os.environ.get(METRICS_VARIABLE, ""):
        Path(given).mkdir(parents=True, exist_ok=True)
        yield given
    elif processes == 1:
        yield ""
    else:
        with tempfile.TemporaryDirectory(prefix="dragoman-metrics-") as directory:
            os.environ[METRICS_VARIABLE] = directory
            yield directory


def serve(
    broker: BrokerSettings, settings: ApiSettings, documents: DocumentSettings, keys: KeySettings
) -> int:
    """Runs until SIGTERM or SIGINT; the exit status."""
    several = settings.processes > 1
    try:
        # Without sharing first: a port that other processes share looks free to one that would too.
        with bind(settings.host, settings.port, shared=False) as probe:
            port = probe.getsockname()[1]
        # Keeps the port while processes come and go; a socket that does not listen gets nothing.
        holder = bind(settings.host, port, shared=True) if several else None
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", settings.host, settings.port, error)
        return 1
    with _metrics_directory(settings.processes) as directory:
        if holder is None:
            run(broker, settings, documents, keys, directory, port)
            return 0
        with holder:
            arguments = (broker, settings, documents, keys, directory, port)
            return Supervisor(settings.processes, run, arguments, settings.grace_s).run()


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    broker, settings, documents, keys = parse(
        [BrokerSettings, ApiSettings, DocumentSettings, KeySettings],
        sys.argv[1:] if argv is None else argv,
        os.environ,
        program="dragoman-api",
        description="Dragoman's HTTP tier: takes requests in and hands them to the broker.",
    )
    logs.configure(settings.log_level)
    stop_at_once()
    try:
        check_exposure(settings.host, keys)
        if keys.key_secret_file:
            read_secret(keys.key_secret_file)
        functions.init(broker)
    except BrokerUnavailable:
        pass  # the app says so and waits for it
    except BrokerError as error:
        log.error("%s", error)
        return 2
    return serve(broker, settings, documents, keys)


if __name__ == "__main__":
    sys.exit(main())
