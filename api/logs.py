"""Log lines of this tier: one per event on stderr, in UTC, never with a text to translate."""

import logging
import sys
import time


def configure(level: str) -> None:
    """Sends every logger of this process to stderr."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s[%(process)d] %(message)s",
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
