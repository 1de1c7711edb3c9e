"""The whole service in real processes, with an engine that says back what it reads: what the tests
of this folder attack."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.api.stage import Process, api_process
from tests.conftest import settings_for
from tests.document_worker.stage import DocumentProcess, document_process
from tests.inference_worker.processes import WorkerProcess, paced
from tests.redis_server import RedisServer


@dataclass(frozen=True)
class Service:
    """Its processes."""

    redis: RedisServer
    api: Process
    worker: WorkerProcess
    documents: DocumentProcess

    @property
    def log(self) -> str:
        """Everything that any of them has written."""
        return "\n".join((self.api.log, self.worker.output, self.documents.log))

    @property
    def alive(self) -> bool:
        """Whether every process is the one that was started."""
        return (
            Path(f"/proc/{self.api.pid}").exists()
            and self.worker.running
            and self.documents.process.poll() is None
        )


@contextmanager
def service(redis: RedisServer, *api_flags: str, **engine: str) -> Iterator[Service]:
    """A ready service; ``engine`` are the faults of ``tests.inference_worker.paced_worker``."""
    settings = settings_for(redis, heartbeat_s=1.0)
    with (
        paced(settings, "--slots", "64", **engine) as worker,
        api_process(redis.url, *api_flags) as api,
        document_process(redis.url) as documents,
    ):
        yield Service(redis, api, worker.ready(), documents)


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0
