"""``python -m inference_worker.health``: whether the broker hears the worker of this host.

Containers are asked this way, since a worker listens on no port: a container's host name is its
own, and every worker's id begins with it. Exit status 0 while its heartbeats arrive, 1 otherwise.
"""

import json
import os
import socket
import sys

from broker.connection import connect, reaching_redis
from broker.errors import BrokerError
from broker.keys import shard_keys
from broker.options import parse
from broker.settings import BrokerSettings


def heard(settings: BrokerSettings, host: str) -> bool:
    """Whether a live worker of ``host`` is known. Raises BrokerError if Redis is away."""
    keys = shard_keys(settings.shards)[0]
    with reaching_redis():
        client = connect(settings)
        try:
            fields = client.hgetall(keys.load())
            ids = [
                worker
                for field, register in fields.items()
                if field.startswith(b"workers:")
                for worker in json.loads(register)
                if worker.rsplit("-", 2)[0] == host  # then process and random digits
            ]
            return any(client.exists(keys.worker(worker)) for worker in ids)
        finally:
            client.close()


def main() -> int:
    """The exit status."""
    (settings,) = parse(
        [BrokerSettings],
        [],
        os.environ,
        program="inference_worker.health",
        description="Whether the broker hears the worker of this host.",
    )
    try:
        alive = heard(settings, socket.gethostname())
    except BrokerError as error:
        print(f"dragoman-worker: {error}", file=sys.stderr)
        return 1
    if not alive:
        print("dragoman-worker: no heartbeat yet", file=sys.stderr)
    return 0 if alive else 1


if __name__ == "__main__":
    sys.exit(main())
