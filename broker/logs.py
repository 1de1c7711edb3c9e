"""Log lines of every tier: one per event on stderr, in UTC, with the request they are about, and
never with a text to translate. Of an exception its type and frames are shown; its message may
quote what was being worked on, and is left out wherever the exception comes up."""

import logging
import os
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from types import TracebackType

log = logging.getLogger("dragoman")

# What the lines of this context are about: the X-Request-Id of an HTTP request.
request_id: ContextVar[str] = ContextVar("request_id", default="")

LIBRARIES = ("uvicorn", "rq.worker", "rq.job", "rq.queue", "rq.registry")


def configure(level: str) -> None:
    """Sends every logger of this process to stderr, and what nobody catches as well."""
    # No line shows these, and finding them out is a good part of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.raiseExceptions = False  # a line that cannot be written would be shown with its parts
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Discreet())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in LIBRARIES:  # they tell the life of their own parts; ours say what matters
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class Discreet(logging.Formatter):
    """Formats lines of any logger so that none can show a text."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s[{os.getpid()}] %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name == "asyncio":  # the lines after the first hold what was going on
            record.message = record.message.partition("\n")[0]
        line = super().formatMessage(record)
        about = request_id.get()
        # The line of the access log says it by itself.
        return f"{line} request={about}" if about and " request=" not in line else line

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None],
    ) -> str:
        return told(ei[1]) if ei[1] is not None else ""


def told(error: BaseException) -> str:
    """An exception and those behind it by type and frames, without their messages."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    parts = []
    for one in reversed(chain):
        frames = "".join(_frame(frame) for frame in traceback.extract_tb(one.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(one).__qualname__}")
        if isinstance(one, BaseExceptionGroup):
            parts += [told(member) for member in one.exceptions]
    return "\n".join(parts)


def _frame(frame: traceback.FrameSummary) -> str:
    return f"  File {frame.filename!r}, line {frame.lineno}, in {frame.name}\n"


def _uncaught(
    kind: type[BaseException], error: BaseException, frames: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        log.critical("unexpected %s", kind.__qualname__, exc_info=(kind, error, frames))


def _uncaught_in_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        _uncaught(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
