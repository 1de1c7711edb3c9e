"""Programs that are told to stop before they are ready. As the first process of a container they
would ignore a signal for which they have no handler, until the engine kills them."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.deployment import tools

START_S = 60.0
STOP_S = 30.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("tier", ["api", "document_worker", "inference_worker"])
def test_told_to_stop_while_redis_says_nothing(tier: str, number: int) -> None:
    environ = {name: value for name, value in os.environ.items() if "DRAGOMAN" not in name}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(START_S)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        process = subprocess.Popen(
            [sys.executable, "-m", tier, "--redis-url", url],
            cwd=tools.ROOT, env=environ, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(number)
                _, log = process.communicate(timeout=STOP_S)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, log
    assert "Traceback" not in log
