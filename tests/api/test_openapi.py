"""/openapi.json is valid, its examples run, and real answers fit its schemas."""

from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.app import OPERATIONS
from api.openapi import document
from broker.warnings import MEANING
from tests.api.stage import Worker, body

DOCUMENT = document(OPERATIONS, keys=False)


def fits(instance: Any, schema: dict[str, Any]) -> None:
    """Fails unless an instance fits a schema of the document."""
    whole = schema | {"components": DOCUMENT["components"]}
    jsonschema.validate(instance, whole, cls=jsonschema.Draft202012Validator)


def told(path: str, method: str, answer: httpx.Response) -> None:
    """Fails unless the document tells of this answer."""
    described = DOCUMENT["paths"][path][method]["responses"][str(answer.status_code)]
    media = answer.headers["content-type"].partition(";")[0]
    schema = described["content"][media]["schema"]
    if media == "text/event-stream":
        for event in answer.text.split("\n\n"):
            lines = [line.partition(": ") for line in event.splitlines()]
            if any(name == "data" for name, _, _ in lines):
                fits({name: value for name, _, value in lines}, schema)
        return
    fits(answer.json() if "json" in media else answer.text, schema)


async def test_the_document_is_valid_openapi(client: httpx.AsyncClient) -> None:
    served = (await client.get("/openapi.json")).json()
    OpenAPIV31SpecValidator(served).validate()
    assert served == DOCUMENT
    assert served["info"]["title"] == "Dragoman"


def test_every_route_of_the_contract_is_told() -> None:
    found = {(path, method) for path, item in DOCUMENT["paths"].items() for method in item}
    assert found == {
        ("/translation", "post"),
        ("/jobs", "post"),
        ("/jobs/{id}", "get"),
        ("/jobs/{id}", "delete"),
        ("/jobs/{id}/events", "get"),
        ("/documents", "post"),
        ("/documents/{id}", "get"),
        ("/documents/{id}", "delete"),
        ("/documents/{id}/result", "get"),
        ("/languages", "get"),
        ("/usage", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }


def test_every_code_of_a_warning_is_told() -> None:
    told = DOCUMENT["components"]["schemas"]["RecordResult"]["properties"]["warnings"]
    assert all(f"`{code}`: {meaning}" in told["description"] for code, meaning in MEANING.items())


def test_limits_are_in_the_schema() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Payload"]["properties"]["records"]["maxItems"] == 1_000
    assert schemas["SourceRecord"]["properties"]["text"]["maxLength"] == 10_000
    assert schemas["Payload"]["required"] == ["fromLang", "records", "toLang"]


@pytest.mark.parametrize("path", ["/translation", "/jobs"])
async def test_the_examples_run(client: httpx.AsyncClient, worker: Worker, path: str) -> None:
    media = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    assert len(media["examples"]) >= 2
    for example in media["examples"].values():
        fits(example["value"], media["schema"])
        answer = await client.post(path, json=example["value"])
        assert answer.status_code in (200, 202)
        told(path, "post", answer)


def test_example_answers_fit_their_schemas() -> None:
    count = 0
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                for media in response["content"].values():
                    if "example" in media:
                        fits(media["example"], media["schema"])
                        count += 1
    assert count >= 5


async def test_real_answers_fit_their_schemas(client: httpx.AsyncClient, worker: Worker) -> None:
    job = (await client.post("/jobs", json=body("one", "poison"))).headers["location"]
    for query in ("", "?wait=60", "?details=true"):
        told("/jobs/{id}", "get", await client.get(job + query))
    told("/jobs/{id}", "delete", await client.delete(job))
    told("/jobs/{id}", "get", await client.get("/jobs/none"))
    told("/jobs/{id}", "get", await client.get(f"{job}?wait=x"))
    told("/jobs/{id}/events", "get", await client.get(f"{job}/events"))
    for path in ("/languages", "/healthz", "/readyz", "/metrics"):
        told(path, "get", await client.get(path))
    told("/readyz", "get", await client.get("/readyz?workers=7"))
    details = {"details": "true"}
    for sent in (body("one", "poison"), body("poison"), body("late"), body("x", target="jp"), {}):
        answer = await client.post("/translation", json=sent, params=details)
        told("/translation", "post", answer)
    answer = await client.post("/translation", content=b"{", headers={"Content-Type": "text/plain"})
    told("/translation", "post", answer)
    answer = await client.post("/translation", content=b"{")
    told("/translation", "post", answer)
