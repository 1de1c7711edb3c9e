"""What ``dragoman up`` may be told; the tiers' own settings pass through the environment."""

import math
from dataclasses import dataclass

from broker.options import option

DEVICES = ("auto", "cpu", "cuda")
MAX_PROCESSES = 256
MOST_NICE = 19


@dataclass(frozen=True)
class StackSettings:
    """Settings of the one-machine stack."""

    host: str = option("127.0.0.1", "Address the API listens on; 0.0.0.0 for every interface.")
    port: int = option(9527, "Port the API listens on.")
    workers: int = option(1, "Worker processes; each holds its own copy of the model.")
    document_workers: int = option(
        1, "Document worker processes; each translates one document at a time; 0 for none."
    )
    api_processes: int = option(1, "API processes; they share the port.")
    model: str = option(
        "small", "M2M100 checkpoint: a name, a directory, or small, the one that is bundled."
    )
    redis_url: str = option(
        "", "A Redis or Valkey server that runs already. Without it an embedded one is started."
    )
    data_dir: str = option(
        "", "Directory in which the embedded server keeps the queue. Without it, in memory alone."
    )
    device: str = option("auto", "Where the workers compute.", choices=DEVICES)
    nice: int = option(
        5,
        "How far the workers stand back behind the API and Redis where processors are short, from 0"
        " to 19 as in `nice`.",
    )
    grace_s: float = option(
        30.0, "How long each tier may take to end what it has begun, once told to stop."
    )
    key_secret_file: str = option(
        "", "File with the secret of the API keys. With one, every request needs a key."
    )
    insecure: bool = option(
        False, "Serve without API keys even where other machines can reach the address."
    )
    verbose: bool = option(False, "Show everything the tiers log, not their warnings alone.")

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError("--port must be between 1 and 65535")
        for name in ("workers", "api_processes"):
            if not 1 <= getattr(self, name) <= MAX_PROCESSES:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} must be between 1 and {MAX_PROCESSES}")
        if not 0 <= self.document_workers <= MAX_PROCESSES:
            raise ValueError(f"--document-workers must be between 0 and {MAX_PROCESSES}")
        if not 0 <= self.nice <= MOST_NICE:
            raise ValueError(f"--nice must be between 0 and {MOST_NICE}")
        if not 0 <= self.grace_s < math.inf:
            raise ValueError("--grace-s must be 0 or more")
        if self.redis_url and self.data_dir:
            raise ValueError(
                "--data-dir is where the embedded server keeps the queue; with --redis-url there"
                " is none, so give one of the two"
            )
        if self.device not in DEVICES:
            raise ValueError(f"--device must be one of {', '.join(DEVICES)}, not {self.device!r}")
