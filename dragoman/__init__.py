"""Dragoman's Python client, and the ``dragoman`` command that runs the whole service."""

from dragoman.answers import JobStatus, RecordError, Result
from dragoman.async_client import AsyncClient, AsyncJob
from dragoman.client import Client, Job
from dragoman.errors import (
    DragomanError,
    InvalidRequest,
    JobCancelled,
    KeyRefused,
    NotFound,
    NotInTime,
    Overloaded,
    RecordsFailed,
    ServerError,
    ServerUnreachable,
    UnexpectedAnswer,
)
from dragoman.exchange import Retries

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "Client",
    "DragomanError",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobStatus",
    "KeyRefused",
    "NotFound",
    "NotInTime",
    "Overloaded",
    "RecordError",
    "RecordsFailed",
    "Result",
    "Retries",
    "ServerError",
    "ServerUnreachable",
    "UnexpectedAnswer",
]
