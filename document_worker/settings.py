"""Settings of a document worker process."""

from dataclasses import dataclass

from broker.options import option


@dataclass(frozen=True)
class DocumentWorkerSettings:
    """Settings of ``dragoman-documents``. Times are seconds."""

    requests_in_flight: int = option(
        4, "Requests of up to 250 texts that a document may have waiting or running."
    )
    document_lease_s: int = option(
        15, "How long a document worker may stay silent before its document moves on."
    )
    connect_s: float = option(60.0, "How long to wait for Redis at the start before giving up.")
    log_level: str = option(
        "info", "Least severe line that is logged.", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        if not 1 <= self.requests_in_flight <= 64:
            raise ValueError("--requests-in-flight must be between 1 and 64")
        if self.document_lease_s < 3:
            raise ValueError("--document-lease-s must be at least 3")
        if self.connect_s < 0:
            raise ValueError("--connect-s must not be below 0")
