"""Where Redis is and how the protocol's clocks are set; the same for every tier."""

from dataclasses import dataclass

from broker.keys import MAX_SHARDS
from broker.options import option


@dataclass(frozen=True)
class BrokerSettings:
    """Settings of the broker. Times are seconds unless the name says otherwise."""

    redis_url: str = option(
        "redis://127.0.0.1:6379/0",
        "Redis or Valkey: redis://, rediss:// (TLS), unix://, redis+sentinel://host:port,…/service,"
        " redis+cluster://host:port,….",
    )
    redis_user: str = option("", "Redis user (ACL); empty: the URL's, or the default user.")
    redis_password_file: str = option("", "File whose first line is the Redis password.")
    redis_ca_file: str = option(
        "", "Certificates (PEM) that Redis' own must come from, with TLS; empty: the system's."
    )
    redis_cert_file: str = option("", "Certificate (PEM) to show to Redis, if it asks for one.")
    redis_key_file: str = option("", "Key (PEM) of --redis-cert-file.")
    redis_timeout_s: float = option(1.0, "How long one Redis call may take before it is given up.")
    shards: int = option(1, "Independent sets of queues; more than one only pays on a cluster.")
    result_ttl_s: int = option(3600, "How long results stay readable after a request ends.")
    max_outstanding_chars: int = option(
        200_000_000, "Admission cap: characters queued or running per shard; above it, 503."
    )
    max_tenant_chars: int = option(
        100_000_000, "The same for one tenant, unless its key says otherwise; above it, 429."
    )
    lease_s: float = option(15.0, "How long a worker may stay silent before its records move on.")
    heartbeat_s: float = option(5.0, "How often a worker reports; three missed ones make it dead.")
    dead_letters: int = option(10_000, "How many dead letters are kept, about.")
    reply_ttl_s: int = option(120, "How long the reply stream of a dead API process is kept.")
    memory: bool = option(
        True,
        "Whether what a tenant had translated before, or has under way, is not translated again.",
    )
    memory_ttl_s: int = option(
        86_400, "How long the translation of a sentence is remembered for its tenant."
    )
    memory_sentences: int = option(
        100_000, "How many sentences are remembered for a tenant, about; the oldest go first."
    )

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= MAX_SHARDS:
            raise ValueError(f"--shards must be between 1 and {MAX_SHARDS}")
        positive = ("redis_timeout_s", "result_ttl_s", "lease_s", "heartbeat_s", "reply_ttl_s")
        more = ("max_outstanding_chars", "max_tenant_chars", "memory_ttl_s", "memory_sentences")
        for name in (*positive, *more):
            if getattr(self, name) <= 0:
                raise ValueError(f"--{name.replace('_', '-')} must be above 0")
        if self.dead_letters < 0:
            raise ValueError("--dead-letters must be 0 or more")
        if bool(self.redis_cert_file) != bool(self.redis_key_file):
            raise ValueError("--redis-cert-file and --redis-key-file belong together")
