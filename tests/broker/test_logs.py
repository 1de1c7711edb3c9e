"""Tests of ``broker.logs``, in a process of its own: what every tier writes to stderr."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECRET = "the-hidden-word"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+\[\d+\] .+")
PREAMBLE = f"""
import asyncio, logging, threading
from broker import logs
logs.configure("info")
SECRET = {SECRET!r}
log = logging.getLogger("dragoman.test")
def fail(): raise ValueError(SECRET)
"""


def logged(script: str) -> str:
    """What a process writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script], cwd=ROOT, capture_output=True, text=True
    )
    assert SECRET not in done.stderr
    return done.stderr


def test_a_line_has_its_time_level_logger_and_process() -> None:
    assert LINE.fullmatch(logged("log.info('begun %d', 7)").strip())


def test_a_line_says_which_request_it_is_about() -> None:
    said = logged("logs.request_id.set('r1'); log.info('one'); log.info('two request=r2')")
    assert [line.partition("] ")[2] for line in said.splitlines()] == [
        "one request=r1",
        "two request=r2",
    ]


def test_an_exception_is_told_without_its_message() -> None:
    said = logged("""
try:
    try: fail()
    except ValueError as error: raise KeyError(SECRET) from error
except KeyError: log.exception("broken")
try:
    try: fail()
    except ValueError: raise KeyError(SECRET)
except KeyError: log.exception("broken")
""")
    assert said.count("broken") == 2
    assert said.count("in fail\nValueError\nTraceback") == 2
    assert said.count("KeyError\n") == 2


def test_groups_are_told_whole() -> None:
    said = logged("""
async def main():
    async with asyncio.TaskGroup() as group: group.create_task(asyncio.to_thread(fail))
try: asyncio.run(main())
except ExceptionGroup: log.exception("broken")
""")
    assert "ExceptionGroup" in said
    assert "in fail\nValueError" in said


def test_what_nobody_catches_is_told_the_same_way() -> None:
    assert "CRITICAL dragoman" in logged("fail()")
    assert "in fail\nValueError" in logged("""
thread = threading.Thread(target=fail); thread.start(); thread.join()
""")


def test_what_asyncio_finds_is_told_the_same_way() -> None:
    said = logged("""
async def main():
    async def broken(): fail()
    task = asyncio.create_task(broken())
    await asyncio.sleep(0)
    del task
asyncio.run(main())
""")
    assert "ERROR asyncio" in said
    assert "was never retrieved\nTraceback" in said
    assert "in fail\nValueError" in said


def test_a_line_that_does_not_fit_its_parts_is_dropped() -> None:
    assert logged("log.info('%d', SECRET)") == ""
