"""Languages: names, near ones, and the answer that needs no live worker."""

import httpx
import pytest

from api.languages import NAMES, near
from broker.settings import BrokerSettings
from tests.api.stage import LANGUAGES, announce, body


@pytest.mark.parametrize(
    ("written", "meant"),
    [("jp", "ja"), ("EN", "en"), ("en-US", "en"), ("zh_Hans", "zh"), ("Japanese", "ja"),
     ("portugese", "pt"), ("germn", "de"), ("iw", "he"), ("fil", "tl"), (" fr ", "fr")],
)  # fmt: skip
def test_near_languages(written: str, meant: str) -> None:
    assert near(written, NAMES)[0].code == meant


@pytest.mark.parametrize("written", ["klingon", "", "日本語", "x" * 64])
def test_nothing_near(written: str) -> None:
    assert near(written, NAMES) == []


def test_near_languages_are_spoken_by_the_model() -> None:
    assert [language.code for language in near("portugese", ["en", "ja"])] == []


def test_the_model_speaks_a_hundred_languages() -> None:
    assert len(NAMES) == 100


async def test_languages_need_no_live_worker(
    client: httpx.AsyncClient, broker_settings: BrokerSettings
) -> None:
    announce(broker_settings)
    answer = await client.get("/languages")
    assert answer.status_code == 200
    assert answer.json()["model"] == "small"
    assert [language["code"] for language in answer.json()["languages"]] == LANGUAGES
    assert {"code": "ja", "name": "Japanese"} in answer.json()["languages"]


@pytest.mark.parametrize("path", ["/languages", "/translation", "/jobs"])
async def test_a_model_nobody_announced_is_503(client: httpx.AsyncClient, path: str) -> None:
    call = client.get(path) if path == "/languages" else client.post(path, json=body("x"))
    answer = await call
    assert answer.status_code == 503
    assert answer.json()["code"] == "no_model"
    assert "dragoman-worker --model small" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("source", "target", "field", "code", "meant"),
    [
        ("en", "jp", "payload.toLang", "unknown_language", "ja"),
        ("English", "ja", "payload.fromLang", "unknown_language", "en"),
        ("en", "sw", "payload.toLang", "unknown_language", None),
        ("en", "en", "payload.toLang", "same_language", None),
    ],
)
async def test_pairs_that_do_not_fit(
    client: httpx.AsyncClient,
    broker_settings: BrokerSettings,
    source: str,
    target: str,
    field: str,
    code: str,
    meant: str | None,
) -> None:
    announce(broker_settings)
    answer = await client.post("/translation", json=body("x", source=source, target=target))
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["field"], problem["code"]) == (field, code)
    if meant:
        assert problem["near"][0]["code"] == meant
        assert f"{meant} ({NAMES[meant]})" in problem["detail"]
