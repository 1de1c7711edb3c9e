"""The baseline answers in the same contract, one ``generate`` a request."""

import json

import httpx
import pytest

from benchmarks import requests
from benchmarks.baseline import create_app


class Upper:
    """Stands in for the model."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        self.batches.append(texts)
        return [f"{target} {text.upper()}" for text in texts]


@pytest.fixture
def translator() -> Upper:
    return Upper()


async def test_it_answers_what_the_stress_test_sends(translator: Upper) -> None:
    body = requests.translation(["one", "two"]).raw.partition(b"\r\n\r\n")[2]
    transport = httpx.ASGITransport(create_app(translator.translate, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://baseline") as client:
        answer = await client.post(
            "/translation", content=body, headers={"Content-Type": "application/json"}
        )
    assert requests.wrong(answer.status_code, answer.content, 2) == ""
    assert [record["text"] for record in json.loads(answer.content)["result"]] == [
        *("ja ONE", "ja TWO")
    ]
    assert translator.batches == [["one", "two"]]
