"""The web page and /docs come from packaged files alone."""

import re

import httpx


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
