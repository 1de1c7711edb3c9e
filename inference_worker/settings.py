"""Settings of a worker process, and what ``auto`` and 0 stand for on a machine."""

import os
from dataclasses import dataclass
from pathlib import Path

from broker.options import option

CACHE_DIR = "~/.cache/dragoman"

# Measured on two cores with the bundled model, beam 5: sentences a second peak at 512 padded
# tokens a batch and halve at 2,048. A GPU wants as much as fits; this leaves room on 16 GB.
BATCH_TOKENS_CPU = 512
BATCH_TOKENS_CUDA = 8_192
SLOTS_CUDA = 256  # of the torch engine on a GPU
MOST_NICE = 19
SLOTS = 32  # of the other engines: more slots gain little and cost memory (benchmarks/engine.py)
# Of CTranslate2 on a CPU: sentences × beams that keep it busy. More gain nothing there, and who
# comes next waits for a longer batch (the shape of 418M, CPU-ms a sentence with 8, 16 and 32 slots:
# 279, 237, 238 with 5 beams; with one beam 106 with 16 and 77 with 32).
ROWS_CPU = 80
LEAST_SOURCE_TOKENS = 8  # language, end, and something to say
MOST_SOURCE_TOKENS = 1_024  # positions of M2M100
_TOKENS_PER_SLOT = 8  # short sentences: a slot more than a batch needs costs nothing


class DeviceError(Exception):
    """The device or the number format that the settings ask for is not there."""


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker. Times are seconds; 0 lets the worker choose where the help says so."""

    model: str = option(
        "small",
        "Checkpoint: small (the bundled one), a directory, or a hub name that was pulled.",
    )
    cache_dir: str = option(CACHE_DIR, "Where pulled checkpoints are kept.")
    device: str = option("auto", "Where the model runs.", choices=("auto", "cpu", "cuda"))
    engine: str = option(
        "auto",
        "What translates: ctranslate2, torch (continuous batching) or generate"
        " (transformers' own); auto takes the fastest one that is installed.",
        choices=("auto", "torch", "ctranslate2", "generate"),
    )
    compute_type: str = option(
        "auto",
        "Number format of the weights: auto is int8 with ctranslate2 and float32 else on a CPU,"
        " bfloat16 or else float16 on a GPU.",
        choices=("auto", "float32", "bfloat16", "float16", "int8"),
    )
    beams: int = option(5, "Beams of the search; 1 is greedy, faster and a little worse.")
    slots: int = option(
        0,
        "Sentences translated at once; 0: 32 (256 with torch on a GPU); with ctranslate2 on a CPU"
        " at most 80 for all beams, so 16 with 5; with generate an eighth of --batch-tokens.",
    )
    batch_tokens: int = option(
        0, "Padded source tokens of a batch of generate; 0: 512 on a CPU, 8192 on a GPU."
    )
    memory_mib: int = option(
        0,
        "What weights and caches of the torch engine may take, in MiB; 0: 4096 on a CPU, four"
        " fifths of what is free on a GPU.",
    )
    length_bound: float = option(
        0.0,
        "Tokens of output per token of input at most, so that a repetition loop costs little; 0:"
        " none, exactly as transformers. Not with generate.",
    )
    no_repeat_ngram: int = option(
        0,
        "Length of token sequences that may not come twice in a sentence; 0: any.",
    )
    self_check: str = option(
        "retry",
        "What is done about translations that loop, lost something or are in a wrong script: off,"
        " report (in the details' warnings), or retry (once more, the better is kept).",
        choices=("off", "report", "retry"),
    )
    max_source_tokens: int = option(
        128, "Longer sentences are translated in parts; M2M100 was trained on single sentences."
    )
    threads: int = option(0, "CPU threads of the model; 0: half of the CPUs at hand.")
    nice: int = option(
        0, "How far the worker stands back where processors are short, from 0 to 19 as in `nice`."
    )
    grace_s: float = option(30.0, "After SIGTERM, how long work in the slots may take to finish.")
    hang_s: float = option(
        120.0, "Ends a worker whose engine makes no progress for so long (or 4 warm-up steps)."
    )
    connect_s: float = option(60.0, "How long to wait for Redis at the start before giving up.")

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError("--beams must be at least 1")
        for name in (
            "memory_mib",
            "batch_tokens",
            "slots",
            "length_bound",
            "no_repeat_ngram",
            "threads",
            "nice",
            "grace_s",
            "connect_s",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} must not be below 0")
        if self.engine == "generate" and self.length_bound:
            raise ValueError("--length-bound needs another engine")
        if self.nice > MOST_NICE:
            raise ValueError(f"--nice must not be above {MOST_NICE}")
        if self.hang_s <= 0:
            raise ValueError("--hang-s must be above 0")
        if not LEAST_SOURCE_TOKENS <= self.max_source_tokens <= MOST_SOURCE_TOKENS:
            raise ValueError(
                f"--max-source-tokens must be between {LEAST_SOURCE_TOKENS} and"
                f" {MOST_SOURCE_TOKENS}"
            )

    def batch_tokens_on(self, device: str) -> int:
        """Padded tokens of a batch on a device."""
        default = BATCH_TOKENS_CPU if device == "cpu" else BATCH_TOKENS_CUDA
        return self.batch_tokens or default

    def slots_on(self, device: str) -> int:
        """Sentences the engine holds at once on a device."""
        return self.slots or max(2, self.batch_tokens_on(device) // _TOKENS_PER_SLOT)

    def batch_on(self, device: str) -> int:
        """Sentences of a batch of CTranslate2 on a device."""
        if self.slots or device != "cpu":
            return self.slots or SLOTS
        return max(1, min(SLOTS, ROWS_CPU // self.beams))

    def threads_here(self) -> int:
        """CPU threads of the model. Half, since a second OpenMP thread on a CPU that is busy with
        the rest of the stack costs three times what it brings."""
        return self.threads or max(1, cpus() // 2)


def cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this process may use: its affinity, or its container's quota where that is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        limit, period = quota.read_text(encoding="ascii").split()
        return max(1, min(count or 1, int(limit) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return count or 1
