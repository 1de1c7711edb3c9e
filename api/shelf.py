"""What one API process has of the documents: their store in Redis, and RQ's queue, through which
the document workers get them."""

import asyncio
from dataclasses import dataclass, field
from functools import cached_property

from rq import Queue, Retry
from starlette.requests import Request

from broker.connection import reaching_redis
from broker.document_queue import QUEUE, TASK, connect_queue
from broker.document_settings import DocumentSettings
from broker.documents import Documents
from broker.settings import BrokerSettings
from document_formats.confinement import Bounds

MOST_RUNS = 20  # of a job whose worker dies; the document worker gives up earlier and says why
JOB_MARGIN_S = 600  # a run ends itself at the document's deadline; RQ ends one that does not
FAILURE_TTL_S = 3_600
EXAMINED_AT_ONCE = 2  # uploads whose text is in this process's memory


@dataclass
class Shelf:
    """The documents of one API process, found through ``shelf_of``."""

    broker: BrokerSettings
    settings: DocumentSettings
    documents: Documents
    examining: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(EXAMINED_AT_ONCE)
    )

    @property
    def bounds(self) -> Bounds:
        """What taking an upload apart may take."""
        return Bounds(self.settings.parse_memory_mib, self.settings.parse_cpu_s)

    @cached_property
    def queue(self) -> Queue:
        """Made when it is first used: who has no server that RQ can use has no documents, but
        everything else."""
        return Queue(QUEUE, connection=connect_queue(self.broker, self.settings), serializer="json")

    async def close(self) -> None:
        """Closes the connections of both."""
        await self.documents.close()
        if "queue" in self.__dict__:
            self.queue.connection.close()

    def waiting(self) -> int:
        """Documents that no worker has taken yet. Blocks."""
        with reaching_redis():
            return len(self.queue)

    def enqueue(self, tenant: str, document_id: str) -> None:
        """Hands a document to the workers. Blocks."""
        deadline_s = int(self.settings.document_deadline_s)
        with reaching_redis():
            self.queue.enqueue_call(
                TASK,
                args=(tenant, document_id),
                job_id=document_id,
                timeout=deadline_s + JOB_MARGIN_S,
                ttl=deadline_s + self.settings.document_ttl_s,
                result_ttl=0,
                failure_ttl=FAILURE_TTL_S,
                description=f"document {document_id}",
                retry=Retry(max=MOST_RUNS),
            )

    def dequeue(self, document_id: str) -> None:
        """Takes back a document that no worker has taken. Blocks."""
        with reaching_redis():
            self.queue.remove(document_id)


def shelf(broker: BrokerSettings, settings: DocumentSettings) -> Shelf:
    """The shelf of an app; nothing is connected yet."""
    return Shelf(broker, settings, Documents(broker, settings))


def shelf_of(request: Request) -> Shelf:
    """The shelf of the app that took the request."""
    found: Shelf = request.app.state.shelf
    return found
