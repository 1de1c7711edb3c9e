"""Settings of documents: where and how many of them wait, how long they are kept, and what it may
cost to take one apart."""

from dataclasses import dataclass

from broker.options import option

LEAST_PARSE_MIB = 64  # an interpreter alone takes some 30


@dataclass(frozen=True)
class DocumentSettings:
    """Settings of documents, the same for the API and the document worker."""

    rq_url: str = option(
        "",
        "Redis of the documents queue (RQ; no cluster), with a user of its own; empty: that of"
        " --redis-url.",
    )
    rq_user: str = option("", "Redis user (ACL) of the documents queue.")
    rq_password_file: str = option("", "File whose first line is that user's password.")
    document_ttl_s: int = option(
        86_400, "How long a document and its result are kept after it has ended."
    )
    document_deadline_s: float = option(
        86_400.0, "How long the translation of a document may take from its upload on."
    )
    max_queued_documents: int = option(
        100, "Documents that may wait for a document worker; above it, 503."
    )
    parse_cpu_s: int = option(
        20, "CPU seconds that taking a document apart may take, in a process of its own."
    )
    parse_memory_mib: int = option(
        512, "Memory that taking a document apart may take, in MiB, in a process of its own."
    )

    def __post_init__(self) -> None:
        times = ("document_ttl_s", "document_deadline_s", "parse_cpu_s")
        for name in (*times, "max_queued_documents"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0")
        if self.parse_memory_mib < LEAST_PARSE_MIB:
            raise ValueError(f"--parse-memory-mib must be at least {LEAST_PARSE_MIB}")
