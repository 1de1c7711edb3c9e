"""What a training run depends on: its settings, how the command line gives them, and the names of
the files it leaves in its folder."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from models.training.network import Shape

STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"
SETTINGS_FILE = "settings.json"
DEFAULT_WEIGHTS = (
    "en-ja:46,de-en:11,en-fr:9,en-es:11,de-ja:5,fr-ja:4,es-ja:5,de-fr:3,de-es:3,es-fr:3"
)


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on; written beside its checkpoint as `settings.json`."""

    data: Path
    tokenizer: Path
    out: Path
    init: Path | None = None
    """A checkpoint to continue from with a fresh optimizer; its shape wins over `shape`."""
    shape: Shape = field(default_factory=Shape)
    weights: str = DEFAULT_WEIGHTS
    steps: int | None = None
    minutes: float | None = None
    finish_at: float = math.inf
    """Seconds since the epoch at which a run measured in minutes must have ended."""
    tokens: int = 1600
    """Padded tokens of a batch on one rank."""
    max_tokens: int = 40
    """Longer sentences are left out."""
    peak_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 0.01
    smoothing: float = 0.1
    clip: float = 1.0
    average_decay: float = 0.998
    """Of the moving average of the weights, per step."""
    log_s: float = 60.0
    save_s: float = 600.0
    ranks: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either steps or minutes")


def parse_arguments() -> Settings:
    parser = argparse.ArgumentParser(description="Train the small M2M100.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the TSV files")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder; resumes there")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="checkpoint to continue from")
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS, help="share of each language pair")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, help="running time instead of steps")
    parser.add_argument("--finish-at", default="inf", help="ISO time at which to be done")
    parser.add_argument("--tokens", type=int, default=Settings.tokens)
    parser.add_argument("--max-tokens", type=int, default=Settings.max_tokens)
    parser.add_argument("--peak-rate", type=float, default=Settings.peak_rate)
    parser.add_argument("--warmup-steps", type=int, default=Settings.warmup_steps)
    parser.add_argument("--average-decay", type=float, default=Settings.average_decay)
    parser.add_argument("--save-s", type=float, default=Settings.save_s)
    parser.add_argument("--ranks", type=int, default=1, help="CPU processes of one thread")
    parser.add_argument("--d-model", type=int, default=Shape.d_model)
    parser.add_argument("--ffn", type=int, default=Shape.ffn)
    parser.add_argument("--encoder-layers", type=int, default=Shape.encoder_layers)
    parser.add_argument("--decoder-layers", type=int, default=Shape.decoder_layers)
    parser.add_argument("--dropout", type=float, default=Shape.dropout)
    args = vars(parser.parse_args())
    shape = {name: args.pop(name) for name in list(args) if name in Shape.__dataclass_fields__}
    finish = args.pop("finish_at")
    finish_at = math.inf if finish == "inf" else datetime.fromisoformat(finish).timestamp()
    return Settings(**args, shape=Shape(**shape), finish_at=finish_at)
