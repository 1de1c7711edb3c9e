"""The terminal's Ctrl-C, when we are not the only process it would reach."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def ctrl_c_is_ours() -> Iterator[None]:
    """While the context lasts, Ctrl-C reaches this process and not the one that runs it.

    The terminal interrupts every process of its foreground group. Under ``make run`` that is make
    too, which then reports a failure although everything stopped as it should. So we become a group
    of our own and give it the terminal, as a shell does with a job. Ctrl-Z is off meanwhile: nobody
    would be left to type ``fg`` to.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:  # none: nothing can be typed
        yield
        return
    try:
        theirs = os.tcgetpgrp(terminal)
        if os.getpgrp() == os.getpid() or os.getpgrp() != theirs:
            yield  # alone in our group, or in the background
            return
        held = (signal.SIGTTOU, signal.SIGTSTP)
        previous = {number: signal.signal(number, signal.SIG_IGN) for number in held}
        os.setpgid(0, 0)
        os.tcsetpgrp(terminal, os.getpid())
        try:
            yield
        finally:
            with suppress(OSError):  # whoever ran us may be gone
                os.tcsetpgrp(terminal, theirs)
                os.setpgid(0, theirs)
            for number, handler in previous.items():
                signal.signal(number, handler)
    finally:
        os.close(terminal)
