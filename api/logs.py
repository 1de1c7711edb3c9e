"""Log lines of this tier: one per event on stderr, in UTC, never with a text to translate."""

import logging
import os
import sys
import time


def configure(level: str) -> None:
    """Sends every logger of this process to stderr."""
    # No line shows these, and finding them out is a good part of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s[{os.getpid()}] %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn tells the life of its own parts; ours say what matters.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))
