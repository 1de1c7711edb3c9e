"""LitServe with its dynamic batching: requests that come within ``--batch-wait-s`` share a call of
the model, up to ``--batch`` of them."""

from typing import Any

import litserve
import options


class Translation(litserve.LitAPI):
    """Decodes, batches and answers as LitServe's documentation shows it."""

    def setup(self, device: str) -> None:
        self.translate = options.translator(options.parsed())

    def decode_request(self, request: dict[str, str]) -> options.Asked:
        return request["text"], request["source"], request["target"]

    def batch(self, inputs: list[options.Asked]) -> list[options.Asked]:
        return inputs

    def predict(self, x: list[options.Asked], **rest: Any) -> list[str]:
        return options.together(self.translate, x)

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output: str, **rest: Any) -> dict[str, str]:
        return {"text": output}


if __name__ == "__main__":
    given = options.parsed()
    api = Translation(
        max_batch_size=given.batch, batch_timeout=given.batch_wait_s, api_path="/translate"
    )
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=given.port, log_level="warning", generate_client_file=False)
