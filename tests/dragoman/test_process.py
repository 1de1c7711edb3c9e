"""Real child processes: their output, their exit, and that they never outlive us."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dragoman.process import Command, Process, exit_reason

Wait = Callable[..., Any]


def python(code: str, **options: Any) -> Command:
    return Command("child", [sys.executable, "-uc", code], "ready", 1.0, **options)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def finish(process: Process, wait_until: Wait) -> list[str]:
    """All it prints until it has ended, and whoever else may print."""
    printed: list[str] = []

    def ended() -> bool:
        code = process.exit_code()
        printed.extend(process.lines())
        return code is not None and process.fileno() == -1

    wait_until(ended, description="the child ends")
    return printed


def test_output_of_both_streams_line_by_line(wait_until: Wait) -> None:
    code = "import sys; print('one'); print('two', file=sys.stderr); print('three', end='')"
    process = Process(python(code))
    assert finish(process, wait_until) == ["one", "two", "three"]
    assert process.exit_code() == 0
    assert process.fileno() == -1


def test_more_output_than_a_pipe_holds(wait_until: Wait) -> None:
    process = Process(python("print('x' * 300_000); print('end')"))
    assert [len(line) for line in finish(process, wait_until)] == [300_000, 3]


def test_bytes_that_are_no_text(wait_until: Wait) -> None:
    process = Process(python("import sys; sys.stdout.buffer.write(b'caf\\xe9\\n')"))
    assert finish(process, wait_until) == ["caf\N{REPLACEMENT CHARACTER}"]


def test_environment_is_added_to_ours(wait_until: Wait) -> None:
    code = "import os; print(os.environ['ADDED'], 'PATH' in os.environ)"
    process = Process(python(code, environ={"ADDED": "yes"}))
    assert finish(process, wait_until) == ["yes True"]


def test_it_does_not_get_the_terminals_signals(wait_until: Wait) -> None:
    process = Process(python("import os; print(os.getsid(0) == os.getpid())"))
    assert finish(process, wait_until) == ["True"]


def test_a_polite_signal_reaches_it(wait_until: Wait) -> None:
    process = Process(
        python("import signal; signal.signal(15, lambda *_: exit(7)); print('up'); signal.pause()")
    )
    wait_until(process.lines, description="the child says it is up")
    process.send(signal.SIGTERM)
    finish(process, wait_until)
    assert process.exit_code() == 7


def test_killing_it_ends_its_children_too(wait_until: Wait) -> None:
    code = (
        "import subprocess, signal; print(subprocess.Popen(['sleep', '600']).pid); signal.pause()"
    )
    process = Process(python(code))
    (grandchild,) = wait_until(process.lines, description="the child has a child")
    process.send(signal.SIGKILL)
    finish(process, wait_until)
    wait_until(lambda: not alive(int(grandchild)), description="the grandchild is gone")
    process.send(signal.SIGKILL)  # nothing left: nothing happens


def test_when_we_are_killed_it_dies(wait_until: Wait, tmp_path: Path) -> None:
    code = (
        "import signal, sys\n"
        "from dragoman.process import Command, Process\n"
        "child = Process(Command('c', ['sleep', '600'], 'ready', 1.0))\n"
        "print(child.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.kill()
    wait_until(lambda: not alive(child), description="the child is gone")


def test_exit_reasons() -> None:
    assert exit_reason(3) == "ended with exit code 3"
    assert exit_reason(-9) == "was ended by SIGKILL"
    assert exit_reason(-200) == "was ended by signal 200"
