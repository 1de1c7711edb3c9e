"""What Dragoman replaces: the model inside the web process. One FastAPI app with one copy of the
model; its synchronous endpoint runs in the thread pool and calls ``generate`` once a request, on
the request's records as one batch, as the model card shows it.

    python -m benchmarks.baseline --port 9600 [--model models/small] [--beams 5] [--concurrency 40]

``--concurrency`` is the size of the thread pool; 40 is what FastAPI starts with.
"""

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

from inference_worker.checkpoint import find
from inference_worker.settings import CACHE_DIR

THREADS = 40
READY = "baseline ready"
ENGINE = "transformers generate, float32"


class Record(BaseModel):
    id: str
    text: str


class Payload(BaseModel):
    from_lang: str = Field(alias="fromLang")
    to_lang: str = Field(alias="toLang")
    records: list[Record]


class Body(BaseModel):
    payload: Payload


Translate = Callable[[list[str], str, str], list[str]]


def create_app(translate: Translate, concurrency: int) -> FastAPI:
    """``translate`` takes texts, source and target."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = concurrency
        print(READY, flush=True)
        yield

    app = FastAPI(lifespan=lifespan)

    # Without a response model: checking it would queue for a thread behind every waiting request.
    @app.post("/translation", response_model=None)
    def translation(body: Body) -> dict[str, Any]:
        payload = body.payload
        texts = translate(
            [record.text for record in payload.records], payload.from_lang, payload.to_lang
        )
        pairs = zip(payload.records, texts, strict=True)
        return {"result": [{"id": record.id, "text": text} for record, text in pairs]}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.baseline", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=THREADS)
    options = parser.parse_args()
    from benchmarks.generating import Translator  # torch takes seconds

    folder = find(options.model, Path(CACHE_DIR).expanduser()).folder
    app = create_app(Translator(folder, options.beams).translate, options.concurrency)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
