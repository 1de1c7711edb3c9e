"""FastAPI with the model in its process: a synchronous endpoint in FastAPI's thread pool, one call
of the model a request. ``generate`` gets one request at a time, its best setting (RESULTS.md);
CTranslate2 has a queue of its own."""

import threading
from contextlib import nullcontext

import options
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

given = options.parsed()
translate = options.translator(given)
alone = nullcontext() if given.ctranslate2 else threading.Lock()
app = FastAPI()


class Asked(BaseModel):
    text: str
    source: str
    target: str


@app.post("/translate")
def answer(asked: Asked) -> dict[str, str]:
    with alone:
        return {"text": translate([asked.text], asked.source, asked.target)[0]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
