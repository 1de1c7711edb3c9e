"""Ctrl-C on a real terminal, under a program that would take it as its own."""

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CODE = """
import signal, time
from dragoman.stack import Interrupts, wait
from dragoman.terminal import ctrl_c_is_ours
with ctrl_c_is_ours(), Interrupts() as interrupts:
    print("listening", flush=True)
    while not interrupts.count:
        wait([interrupts.reader.fileno()])
print("stopped in order", flush=True)
"""


@contextmanager
def terminal(*command: str) -> Iterator[int]:
    """A new terminal whose session leader is the command."""
    child, ours = pty.fork()
    if child == 0:
        os.execvp(command[0], command)
    try:
        yield ours
    finally:
        os.close(ours)
        os.waitpid(child, 0)


def read_until(ours: int, text: str) -> str:
    shown = ""
    while text not in shown:
        shown += os.read(ours, 4096).decode()
    return shown


def test_ctrl_c_does_not_reach_who_runs_us() -> None:
    script = f"'{sys.executable}' -c '{CODE}'; echo exit code $?; read line; echo read $line"
    with terminal("sh", "-c", script) as ours:
        read_until(ours, "listening")
        os.write(ours, b"\x1a\x03")  # Ctrl-Z does nothing
        shown = read_until(ours, "exit code")
        assert "stopped in order" in shown
        os.write(ours, b"the terminal is theirs again\n")
        shown += read_until(ours, "read the terminal is theirs again")
        assert "exit code 0" in shown


def test_without_a_terminal_nothing_changes() -> None:
    code = "from dragoman.terminal import ctrl_c_is_ours\nwith ctrl_c_is_ours(): print('fine')"
    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("fine\n", "", 0)
