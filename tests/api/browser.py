"""A headless Chromium that the tests of the page speak to over a pipe (DevTools protocol), so that
no driver and no port are needed."""

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import pytest

from tests.waiting import reached

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--remote-debugging-pipe"),
]
LONGEST_MESSAGE_BYTES = 16 * 1024 * 1024


class Page:
    """The one page of a browser."""

    def __init__(self, reader: asyncio.StreamReader, sink: int) -> None:
        self._reader, self._sink = reader, sink
        self._numbers = count(1)
        self._session: dict[str, str] = {}

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and its result; events are skipped."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        os.write(self._sink, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        found = await self.call("Target.attachToTarget", flatten=True, **target)
        self._session = {"sessionId": found["sessionId"]}

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def open(self, url: str) -> None:
        """Returns when the page has loaded and can be used."""
        await self.call("Page.navigate", url=url)
        await self.until('document.querySelector("#go")?.disabled === false')

    async def until(self, script: str) -> None:
        """Returns when the expression is true."""
        await reached(lambda: self.run(script), description=script)

    async def write(self, text: str) -> None:
        """Replaces the text to translate, as by typing."""
        await self.run('document.querySelector("#text").select()')
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, modifiers: int = 0) -> None:
        """Presses a key; 2 stands for Ctrl."""
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers)

    async def shown(self, id: str) -> str:
        """What an element says, or holds."""
        text: str = await self.run(
            f'(({{ value, innerText }}) => value ?? innerText)(document.getElementById("{id}"))'
        )
        return text


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser with an empty page, ended with all of its processes."""
    assert CHROMIUM is not None
    from_us, sink = os.pipe()
    source, to_us = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", f'exec "$0" "$@" 3</dev/fd/{from_us} 4>/dev/fd/{to_us}'),
            *(CHROMIUM, *FLAGS, f"--user-data-dir={profile}"),
            pass_fds=(from_us, to_us),
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(from_us)
        os.close(to_us)
        reader = asyncio.StreamReader(limit=LONGEST_MESSAGE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb")
        )
        try:
            page = Page(reader, sink)
            await page.attach()
            yield page
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            transport.close()
            os.close(sink)
