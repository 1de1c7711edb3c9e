"""Ray Serve with ``@serve.batch``: one replica, which gets enough requests at once to fill two
batches (as its documentation asks), and a bounded queue in front: overload is refused."""

import asyncio
import signal
import threading
from types import FrameType

import options
import ray
from fastapi import FastAPI
from pydantic import BaseModel
from ray import serve

given = options.parsed()
app = FastAPI()
QUEUED = 200


class Asked(BaseModel):
    text: str
    source: str
    target: str


@serve.deployment(num_replicas=1, max_ongoing_requests=2 * given.batch, max_queued_requests=QUEUED)
@serve.ingress(app)
class Translation:
    """One copy of the model."""

    def __init__(self) -> None:
        self.translate = options.translator(given)

    @serve.batch(max_batch_size=given.batch, batch_wait_timeout_s=given.batch_wait_s)
    async def together(self, asked: list[options.Asked]) -> list[str]:
        # Not in the event loop, which takes requests in meanwhile.
        return await asyncio.to_thread(options.together, self.translate, asked)

    @app.post("/translate")
    async def answer(self, asked: Asked) -> dict[str, str]:
        return {"text": await self.together((asked.text, asked.source, asked.target))}


def main() -> None:
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": given.port, "access_log": False})
    serve.run(Translation.bind())
    signal.signal(signal.SIGTERM, stop)
    stopping.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
