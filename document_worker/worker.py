"""RQ's worker as this tier uses it: tasks from a table, documents handed back at once when asked to
stop, and the jobs of dead workers found within seconds rather than a quarter of an hour."""

import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.registry import clean_registries
from rq.utils import now
from rq.worker_registration import clean_worker_registry

from broker.document_queue import QUEUE
from document_worker.jobs import Task, job_class

log = logging.getLogger("dragoman.documents")

HEARTBEATS_PER_LEASE = 3  # RQ's timers count whole seconds


class DocumentWorker(Worker):
    """A worker of the documents queue that runs one document at a time, each in a fork."""

    max_connection_wait_time = 5.0  # between tries while Redis is away

    def __init__(self, connection: Any, tasks: Mapping[str, Task], lease_s: int) -> None:
        kind = job_class(tasks)
        self.lease_s = lease_s
        self.stopping = False
        super().__init__(
            [Queue(QUEUE, connection=connection, serializer="json", job_class=kind)],
            connection=connection,
            job_class=kind,
            serializer="json",
            worker_ttl=lease_s * 4,
            job_monitoring_interval=max(1, lease_s // HEARTBEATS_PER_LEASE),
            maintenance_interval=max(1, lease_s // HEARTBEATS_PER_LEASE),
            log_job_description=False,
        )

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        # Not before: a signal that comes as soon as we are ready must find its handler.
        log.info("dragoman-documents ready: queue %s, worker %s", QUEUE, self.name)

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Asked before each look for a job, and so where an idle worker notices that it is to stop:
        the exception that RQ raises in its signal handler can get lost, in a log handler for
        example, which catches everything."""
        if self.stopping:
            raise StopRequested
        return bool(super().should_run_maintenance_tasks)

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        try:
            super().heartbeat(timeout, pipeline)
        except (redis.RedisError, OSError) as error:
            if self.stopping:
                raise StopRequested from error
            raise

    @property
    def dequeue_timeout(self) -> int:
        """How long an idle worker waits for a job before it looks for abandoned ones."""
        return max(1, self.lease_s // HEARTBEATS_PER_LEASE)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """How long an execution is believed alive; RQ's own adds a minute."""
        return self.lease_s

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """A beat that Redis misses is no reason to leave the document alone."""
        try:
            super().maintain_heartbeats(job, execution)
        except (redis.RedisError, OSError) as error:
            log.warning("heartbeat: %s", error)

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        super().prepare_job_execution(job, remove_from_intermediate_queue)
        # RQ takes the time to live off a job that runs; if no worker ever comes back, it must end.
        self.connection.expire(job.key, int(job.timeout or 0) + self.lease_s)

    def clean_registries(self) -> None:
        """As RQ's, but with a lock that a killed worker leaves behind for one lease, not fifteen
        minutes."""
        for queue in self.queues:
            lock = queue.registry_cleaning_key
            if self.connection.set(lock, self.name, nx=True, ex=self.lease_s):
                clean_registries(queue, self._exc_handlers)
                clean_worker_registry(queue)
                queue.intermediate_queue.cleanup(self, queue)
                self.connection.delete(lock)
        self.last_cleaned_at = now()  # type: ignore[assignment]

    def clean_group_registries(self) -> None:
        """There are no groups, and RQ reads them with the pickle serializer."""

    def handle_warm_shutdown_request(self) -> None:
        """The document goes back to the queue: its requests go on without it, and the next worker
        picks them up."""
        self.stopping = True
        log.info("stopping")
        if self.horse_pid:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(self.horse_pid, signal.SIGTERM)

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        if self.stopping:  # told between the dequeuing and the fork
            os.kill(os.getpid(), signal.SIGTERM)
