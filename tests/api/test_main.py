"""``dragoman-api`` as a process: one port and several processes, stopping, and what never loads."""

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.__main__ import main
from api.process import bind
from api.settings import ApiSettings
from broker import logs
from broker.options import flag, variable
from broker.settings import BrokerSettings
from tests.api.stage import ROOT, Worker, announce, api_process, body
from tests.api.test_metrics import samples, value
from tests.conftest import settings_for
from tests.redis_server import RedisServer, free_port
from tests.waiting import reached

Until = Callable[..., Any]
FORBIDDEN = {"torch", "transformers", "ctranslate2", "sentencepiece", "inference_worker"}


def children(pid: int) -> set[int]:
    """The API processes under a supervisor."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            command = (path.parent / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and "spawn_main" in command:
            found.add(int(path.parent.name))
    return found


async def in_flight(client: httpx.AsyncClient, count: int) -> None:
    """Returns once so many requests are being answered, the one that asks included."""

    async def counted() -> bool:
        found = samples((await client.get("/metrics")).text)
        return value(found, "dragoman_http_requests_in_flight") >= count

    await reached(counted, description=f"{count} requests in flight")


@pytest.mark.slow
def test_the_model_libraries_never_load(redis_server: RedisServer) -> None:
    """The process answers a request, then tells its modules."""
    script = (
        "import json, sys; from api.__main__ import main;"
        "code = main(sys.argv[1:]); print(json.dumps(sorted(sys.modules))); sys.exit(code)"
    )
    settings = settings_for(redis_server)
    port = free_port()
    flags = ["--redis-url", redis_server.url, "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with Worker(settings):
        assert any("dragoman-api ready: " in line for line in iter(process.stderr.readline, ""))
        url = f"http://127.0.0.1:{port}"
        answer = httpx.post(f"{url}/translation", json=body("one"), timeout=120)
        assert answer.json() == {"result": [{"id": "0", "text": "eno"}]}
        assert httpx.get(f"{url}/docs", timeout=120).status_code == 200
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    loaded = {name.partition(".")[0] for name in json.loads(output)}
    assert process.returncode == 0
    assert "fastapi" in loaded
    assert not loaded & FORBIDDEN


@pytest.mark.slow
async def test_several_processes_on_one_port(redis_server: RedisServer, wait_until: Until) -> None:
    settings = settings_for(redis_server)
    with (
        Worker(settings) as worker,
        api_process(redis_server.url, "--processes", "2") as process,
    ):
        wait_until(
            lambda: process.log.count("dragoman-api ready") == 2, description="both are ready"
        )
        assert len(children(process.pid)) == 2
        limits = httpx.Limits(max_keepalive_connections=0)  # each request a connection of its own
        async with httpx.AsyncClient(base_url=process.url, limits=limits, timeout=120) as client:
            posts = [client.post("/translation", json=body(f"t{i}")) for i in range(40)]
            answers = await asyncio.gather(*posts)
            texts = [answer.json()["result"][0]["text"] for answer in answers]
            assert texts == [f"t{i}"[::-1] for i in range(40)]
            worker.hold()
            location = (await client.post("/jobs", json=body("one"))).headers["location"]
            polls = [asyncio.ensure_future(client.get(f"{location}?wait=60")) for _ in range(8)]
            streams = [asyncio.ensure_future(client.get(f"{location}/events")) for _ in range(4)]
            await in_flight(client, 13)
            worker.resume()
            assert {(await poll).json()["state"] for poll in polls} == {"done"}
            ended = await asyncio.gather(*streams)
            assert all("event: end" in stream.text for stream in ended)

            async def told() -> list[float]:
                found = samples((await client.get("/metrics")).text)
                posts = {"method": "POST", "route": "/translation", "status": "200"}
                return [
                    value(found, "dragoman_http_requests_total", **posts),
                    value(found, "dragoman_records_accepted_total", lane="interactive"),
                    value(found, "dragoman_http_requests_in_flight"),
                ]

            async def settled() -> bool:
                """Whichever process answers tells the sum; an answer is there before it counts."""
                return [await told() for _ in range(6)] == [[40, 40, 1]] * 6

            await reached(settled, description="every process tells the sum of all")
        served = {line.split("[")[1].split("]")[0] for line in process.lines if " POST " in line}
        assert len(served) == 2, "both processes took requests"


@pytest.mark.slow
async def test_processes_that_are_killed(redis_server: RedisServer, wait_until: Until) -> None:
    settings = settings_for(redis_server)
    with (
        Worker(settings) as worker,
        api_process(redis_server.url, "--processes", "2") as process,
    ):
        wait_until(
            lambda: process.log.count("dragoman-api ready") == 2, description="both are ready"
        )
        worker.hold()
        before = children(process.pid)
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=process.url, limits=limits, timeout=120) as client:
            location = (await client.post("/jobs", json=body("one"))).headers["location"]
            polls = [asyncio.ensure_future(client.get(f"{location}?wait=60")) for _ in range(8)]
            await in_flight(client, 9)
            os.kill(min(before), signal.SIGKILL)
            await asyncio.to_thread(
                wait_until,
                lambda: len(children(process.pid) - before) == 1 or None,
                description="a new process",
            )
            worker.resume()
            ended = await asyncio.gather(*polls, return_exceptions=True)
            assert any(isinstance(answer, httpx.Response) for answer in ended)
            assert (await client.get(f"{location}?wait=60")).json()["state"] == "done"

            async def alone() -> bool:  # an answer is there before it is counted
                found = samples((await client.get("/metrics")).text)
                return value(found, "dragoman_http_requests_in_flight") == 1

            await reached(alone, description="nothing else is in flight")
        orphans = children(process.pid)
        assert len(orphans) == 2
        process.signal(signal.SIGKILL)
        wait_until(
            lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in orphans),
            description="the processes end with their supervisor",
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "number"), [("1", signal.SIGINT), ("1", signal.SIGTERM), ("2", signal.SIGTERM)]
)
async def test_a_stop_answers_what_is_in_flight(
    redis_server: RedisServer, processes: str, number: signal.Signals
) -> None:
    settings = settings_for(redis_server)
    with (
        Worker(settings) as worker,
        api_process(redis_server.url, "--processes", processes) as process,
    ):
        worker.hold()
        async with httpx.AsyncClient(base_url=process.url, timeout=120) as client:
            location = (await client.post("/jobs", json=body("job"))).headers["location"]
            calling = asyncio.ensure_future(client.post("/translation", json=body("one")))
            polling = asyncio.ensure_future(client.get(f"{location}?wait=60"))
            streaming = asyncio.ensure_future(client.get(f"{location}/events"))
            await in_flight(client, 4)
            process.signal(number)
            assert (await polling).json()["state"] == "queued"
            assert "event: end" not in (await streaming).text
            worker.resume()
            assert (await calling).json() == {"result": [{"id": "0", "text": "eno"}]}
        assert await asyncio.to_thread(process.wait) == 0
        assert "Traceback" not in process.log


@pytest.mark.slow
async def test_a_stop_that_cannot_wait_gives_the_location(redis_server: RedisServer) -> None:
    settings = settings_for(redis_server)
    announce(settings)
    with api_process(redis_server.url, "--grace-s", "2.5") as process:
        async with httpx.AsyncClient(base_url=process.url, timeout=120) as client:
            calling = asyncio.ensure_future(client.post("/translation", json=body("one")))
            await in_flight(client, 2)
            process.signal(signal.SIGTERM)
            answer = await calling
        assert answer.status_code == 503
        assert answer.headers["location"].startswith("/jobs/")
        assert await asyncio.to_thread(process.wait) == 0


@pytest.mark.slow
async def test_a_caller_who_hangs_up_while_sending_is_no_mistake(redis_server: RedisServer) -> None:
    announce(settings_for(redis_server))
    labels = {"method": "POST", "route": "/translation", "status": "499"}
    with api_process(redis_server.url) as process:
        async with httpx.AsyncClient(base_url=process.url, timeout=120) as client:
            _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(
                b"POST /translation HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            await in_flight(client, 2)
            writer.close()

            async def counted() -> float | None:
                found = samples((await client.get("/metrics")).text)
                return found.get(("dragoman_http_requests_total", tuple(sorted(labels.items()))))

            await reached(counted, description="the call is counted")
        process.stop()
        assert "Traceback" not in process.log
        assert "unexpected" not in process.log


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "seventy"], "--port must be a whole number"),
        (["--port", "70000"], "--port must be between"),
        (["--processes", "0"], "--processes must be between"),
        (["--sync-wait-s", "0"], "--sync-wait-s must be above 0"),
        (["--log-level", "loud"], "--log-level must be one of"),
    ],
)
def test_settings_that_do_not_fit_are_one_readable_line(
    capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """The log, which ``main`` would send to stderr alone."""
    monkeypatch.setattr(logs, "configure", lambda level: None)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_a_url_that_is_none_is_one_readable_line(lines: Callable[[], str]) -> None:
    assert main(["--redis-url", "http://x"]) == 2
    assert "--redis-url begins with" in lines()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_taken_port_is_one_readable_line(
    redis_server: RedisServer, lines: Callable[[], str], processes: str, shared: bool
) -> None:
    with bind("127.0.0.1", 0, shared=shared) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        flags = ["--redis-url", redis_server.url, "--port", port, "--processes", processes]
        assert main(flags) == 1
    assert "cannot listen on 127.0.0.1" in lines()


def test_help_names_every_flag_and_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for owner in (ApiSettings, BrokerSettings):
        for field in dataclasses.fields(owner):
            assert flag(field.name) in shown
            assert variable(field.name) in shown
