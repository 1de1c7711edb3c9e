"""The queue of documents: its name, its one task, and the server that it lies on. RQ does the rest;
what a document is, and how far it has come, is not in the queue but in ``broker.documents``."""

from dataclasses import replace
from typing import Any

from broker.connection import connect, parse_url
from broker.document_settings import DocumentSettings
from broker.errors import BrokerMisconfigured
from broker.settings import BrokerSettings

QUEUE = "documents"  # RQ's queue, on the server that ``rq_url`` names
TASK = "translate_document"  # the name in the worker's table of tasks; nobody imports it


def connect_queue(broker: BrokerSettings, settings: DocumentSettings) -> Any:
    """A client of the server that holds RQ's queue. Raises BrokerMisconfigured for a cluster, which
    RQ cannot use."""
    url = settings.rq_url or broker.redis_url
    if parse_url(url).kind == "cluster":
        raise BrokerMisconfigured(
            "the documents queue (RQ) cannot live on a Redis Cluster: name a single server with"
            " --rq-url (DRAGOMAN_RQ_URL)"
        )
    if settings.rq_url or settings.rq_user:  # a user of its own, or none
        user, password_file = settings.rq_user, settings.rq_password_file
        broker = replace(broker, redis_user=user, redis_password_file=password_file)
    return connect(replace(broker, redis_url=url))
