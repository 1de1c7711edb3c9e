"""The web page and /docs: they come from packaged files alone, and the page does in a browser what
it should."""

import re
import time

import httpx
import pytest
from fastapi import FastAPI

from tests.api.browser import browser, needs_chromium
from tests.api.stage import Worker, announce, listening
from tests.api.test_metrics import samples
from tests.redis_server import RedisServer
from tests.waiting import reached

CTRL = 2


async def test_the_page_and_all_it_refers_to(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for path in re.findall(r'(?:href|src)="([^"]+)"', page.text):
        assert "//" not in path
        answer = await client.get(f"/{path}")
        assert answer.status_code in (200, 503), path  # languages, while nobody announced any
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "") or path in (
            "docs",
        )


async def test_a_page_that_did_not_change_is_not_sent_again(client: httpx.AsyncClient) -> None:
    tag = (await client.get("/")).headers["etag"]
    answer = await client.get("/", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_every_control_has_a_name(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    for id in re.findall(r'<(?:select|textarea|input)\s+id="(\w+)"', page):
        assert f'<label for="{id}"' in page


async def test_docs_load_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    assert "/openapi.json" in page
    assert "//" not in re.sub(r"<!--.*?-->|//[^\n]*openapi[^\n]*", "", page).replace("</", "")
    for path in re.findall(r'(?:href|src)="([^"]+)"', page):
        answer = await client.get(path)
        assert answer.status_code == 200, path
        assert len(answer.content) > 1_000


@needs_chromium
@pytest.mark.slow
async def test_a_text_is_translated_within_a_persons_patience(app: FastAPI, worker: Worker) -> None:
    async with listening(app) as url, browser() as page:
        await page.open(url)
        await page.write("Where is the station?")
        assert await page.shown("count") == "21 of 10,000 characters"
        before_ms = time.time() * 1000
        await page.press("Enter", CTRL)
        await page.until('output.value === "?noitats eht si erehW"')
        assert re.fullmatch(r"[0-9]+\.[0-9] s", await page.shown("timing"))
        (seen,) = worker.seen
        assert 100_000 < seen.record.deadline_ms - before_ms < 150_000


@needs_chromium
@pytest.mark.slow
async def test_one_translation_at_a_time_and_stop_drops_its_work(
    app: FastAPI, worker: Worker
) -> None:
    async with (
        listening(app) as url,
        browser() as page,
        httpx.AsyncClient(base_url=url, timeout=120) as client,
    ):

        async def left() -> float:
            found = samples((await client.get("/metrics")).text)
            labels = {"method": "POST", "route": "/translation", "status": "499"}
            return found.get(("dragoman_http_requests_total", tuple(sorted(labels.items()))), 0)

        await page.open(url)
        worker.hold()
        await page.write("one")
        for _ in range(3):
            await page.press("Enter", CTRL)
        await page.until('at("stop").checkVisibility()')
        await page.press("Escape")
        await page.until('at("timing").textContent === "Stopped"')
        assert await page.shown("error") == ""
        await reached(left, description="the server noticed")
        assert await left() == 1
        worker.resume()
        await page.run('at("swap").click(); at("swap").click()')
        await page.run('at("go").click()')
        await page.until('output.value === "eno"')


@needs_chromium
@pytest.mark.slow
async def test_what_is_wrong_is_said_and_can_be_mended(app: FastAPI, worker: Worker) -> None:
    async with browser() as page:
        async with listening(app) as url:
            await page.open(url)
            await page.press("Enter", CTRL)
            await page.until('at("error").textContent === "Type some text first."')
            await page.write("𝕏" * 10_002)
            await page.press("Enter", CTRL)
            await page.until('at("error").textContent.startsWith("The text is 2 characters too")')
            assert len(await page.shown("text")) == 10_002  # nothing was cut off
            await page.write("late")
            await page.press("Enter", CTRL)
            await page.until('at("error").textContent === "The deadline passed."')
            await page.run("to.value = from.value")
            await page.press("Enter", CTRL)
            await page.until('at("error").textContent === "Choose two different languages."')
            await page.run('to.value = "ja"')
        await page.press("Enter", CTRL)
        await page.until('at("error").textContent.startsWith("The server cannot be reached.")')
        assert not worker.seen[1:]


@needs_chromium
@pytest.mark.slow
async def test_a_refusal_is_told_to_a_person(app: FastAPI, redis_server: RedisServer) -> None:
    announce(app.state.service.producer.settings)
    measured = {"rate:small": 1, "full:small": 60_000}
    redis_server.client.hset("dragoman:{0}:load", mapping=measured)
    async with listening(app) as url, browser() as page:
        await page.open(url)
        await page.write("y" * 900)
        await page.press("Enter", CTRL)
        await page.until('at("error").textContent !== ""')
        told = await page.shown("error")
        assert re.fullmatch(
            r"The service is busy: this would wait for about \d+ s. Try again in \d+ s.", told
        )
