"""How the HTTP tier listens, waits and stops. The limits of a request are part of the contract and
live with its schema instead."""

from dataclasses import dataclass

from broker.options import option

LEAST_CONNECTIONS = 64


@dataclass(frozen=True)
class ApiSettings:
    """Settings of ``dragoman-api``. Times are seconds."""

    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for every interface.")
    port: int = option(9527, "Port to listen on; 0 takes a free one.")
    processes: int = option(1, "API processes that share the port.")
    model: str = option("small", "Model that requests are queued for: name or directory.")
    grace_s: float = option(30.0, "How long SIGTERM leaves requests in flight to end.")
    drain_s: float = option(
        1.0,
        "How much of that the port stays open, so that balancers and callers can turn elsewhere;"
        " half of the grace at most.",
    )
    sync_wait_s: float = option(300.0, "How long POST /translation waits before it answers 504.")
    sync_deadline_s: float = option(
        600.0, "Default deadline of the work behind POST /translation; X-Deadline-Ms overrides it."
    )
    job_deadline_s: float = option(
        86_400.0, "Default deadline of a job; X-Deadline-Ms overrides it."
    )
    max_body_bytes: int = option(
        8 * 1024 * 1024, "Largest request body in bytes, refused while it streams in."
    )
    body_timeout_s: float = option(
        10.0,
        "How long a request body may take, and a second more for each KiB of it that has come;"
        " then 408.",
    )
    head_timeout_s: float = option(
        10.0, "How long the headers of a request may take; then 408, or the connection is closed."
    )
    max_connections: int = option(
        10_000,
        "Connections of one process; beyond them the one idle longest is closed, and requests are"
        " answered 503 when none is.",
    )
    events_heartbeat_s: float = option(
        15.0, "Longest silence of an event stream before it sends a comment."
    )
    metrics_open: bool = option(
        True, "Whether GET /metrics answers without an API key where requests need one."
    )
    access_log: bool = option(
        True, "Whether each request leaves a line in the log; never its text."
    )
    log_level: str = option(
        "info", "Least severe line that is logged.", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError("--port must be between 0 and 65535")
        if not 1 <= self.processes <= 256:
            raise ValueError("--processes must be between 1 and 256")
        if self.max_connections < LEAST_CONNECTIONS:
            raise ValueError(f"--max-connections must be at least {LEAST_CONNECTIONS}")
        times = ("sync_wait_s", "sync_deadline_s", "job_deadline_s", "events_heartbeat_s")
        for name in (*times, "max_body_bytes", "body_timeout_s", "head_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0")
        for name in ("grace_s", "drain_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more")
