"""What Dragoman replaces: the model inside the web process. One FastAPI app with one copy of the
model; its synchronous endpoint runs in the thread pool and calls ``generate`` once a request, on
the request's records as one batch, as the model card shows it.

    python -m benchmarks.baseline --port 9600 [--model models/small] [--beams 5] [--concurrency 40]

``--concurrency`` is the size of the thread pool; 40 is what FastAPI starts with.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import torch
import transformers
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

from inference_worker.checkpoint import find
from inference_worker.settings import CACHE_DIR

THREADS = 40
READY = "baseline ready"


class Record(BaseModel):
    id: str
    text: str


class Payload(BaseModel):
    from_lang: str = Field(alias="fromLang")
    to_lang: str = Field(alias="toLang")
    records: list[Record]


class Body(BaseModel):
    payload: Payload


class Translator:
    """The model and its tokenizer."""

    def __init__(self, folder: Path, beams: int) -> None:
        self._tokenizer = M2M100Tokenizer.from_pretrained(folder, local_files_only=True)
        self._model = M2M100ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
        self._beams = beams

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        self._tokenizer.src_lang = source
        encoded = self._tokenizer(texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            found = self._model.generate(
                **encoded,
                forced_bos_token_id=self._tokenizer.get_lang_id(target),
                num_beams=self._beams,
                max_length=200,
            )
        texts = self._tokenizer.batch_decode(found, skip_special_tokens=True)
        return [text.strip() for text in texts]


def create_app(translator: Translator, concurrency: int) -> FastAPI:
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
        texts = translator.translate(
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
    transformers.utils.logging.disable_progress_bar()
    folder = find(options.model, Path(CACHE_DIR).expanduser()).folder
    app = create_app(Translator(folder, options.beams), options.concurrency)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
