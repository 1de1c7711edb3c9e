"""``python -m document_worker.health``: whether the queue hears the document worker of this host.

Containers are asked this way, since a document worker listens on no port: a container's host name
is its own, and RQ keeps it with every worker. Exit status 0 while it is registered, 1 otherwise.
"""

import os
import socket
import sys
from typing import Any

from rq import Queue, Worker

from broker.connection import reaching_redis
from broker.document_queue import QUEUE, connect_queue
from broker.document_settings import DocumentSettings
from broker.errors import BrokerError
from broker.options import parse
from broker.settings import BrokerSettings


def heard(client: Any, host: str) -> bool:
    """Whether a live document worker runs on ``host``. Raises BrokerError if Redis is away."""
    queue = Queue(QUEUE, connection=client, serializer="json")
    with reaching_redis():
        return any(worker.hostname == host for worker in Worker.all(queue=queue, serializer="json"))


def main() -> int:
    """The exit status."""
    broker, settings = parse(
        [BrokerSettings, DocumentSettings],
        [],
        os.environ,
        program="document_worker.health",
        description="Whether the queue hears the document worker of this host.",
    )
    try:
        client = connect_queue(broker, settings)
        try:
            alive = heard(client, socket.gethostname())
        finally:
            client.close()
    except BrokerError as error:
        print(f"dragoman-documents: {error}", file=sys.stderr)
        return 1
    if not alive:
        print("dragoman-documents: not registered", file=sys.stderr)
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main())
