"""The training loop: one CUDA device, or one or more CPU processes that average their gradients
over gloo. It saves everything a resumed run needs (weights, their moving average, optimizer, step,
progress), continues from it when started again, and saves when told to stop (SIGTERM)."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch.multiprocessing.spawn import spawn

from models.training.data import (
    Example,
    LanguagePair,
    collate,
    load_pools,
    parse_weights,
    stream_groups,
)
from models.training.network import load_network, new_network, token_loss
from models.training.schedule import StepBudget, TimeBudget, learning_rate
from models.training.settings import (
    LOG_FILE,
    SETTINGS_FILE,
    STATE_FILE,
    Settings,
    parse_arguments,
)
from models.training.tokenizer import Vocabulary

# A paused rank (SIGSTOP for a benchmark) must not make the others give up.
COLLECTIVE_TIMEOUT = timedelta(hours=2)
DEV_ROWS = 64
# glibc hands every large tensor's pages back to the kernel and faults them in again, a fifth of a
# CPU step; with huge pages there are 20 times fewer faults. (Keeping the memory instead, with
# mmap_max=0, fragments: a rank grew by 0.3 GB a minute.) Spawned ranks read this when they start.
MALLOC_TUNABLES = "glibc.malloc.hugetlb=1"


@dataclass
class Window:
    """Running totals between two log lines."""

    loss: float = 0.0
    tokens: int = 0
    since: float = field(default_factory=time.monotonic)


class Trainer:
    """One rank of a run. `step()` does one update; `run()` repeats it until progress reaches 1."""

    def __init__(self, settings: Settings, rank: int = 0, device: str = "cpu") -> None:
        self.settings, self.rank = settings, rank
        self.vocabulary = Vocabulary.load(settings.tokenizer)
        if settings.init is None:
            network = new_network(settings.shape, self.vocabulary.size, settings.seed)
        else:
            network = load_network(settings.init, settings.shape.dropout)
        self.network: Any = network.to(device).train()
        if device == "cpu":
            # torch's fused attention spends 40 % of a CPU step in its backward pass on sentences
            # this short; the plain one makes the whole step a third faster.
            self.network.set_attn_implementation("eager")
        self.parameters = list(self.network.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = _optimizer(self.parameters, settings)
        self.step_count = self.target_tokens = 0
        if settings.steps is not None:
            self.budget: StepBudget | TimeBudget = StepBudget(settings.steps)
        else:
            self.budget = TimeBudget(60 * (settings.minutes or 0.0), settings.finish_at)
        self.stopping = False
        self.load()
        weights = parse_weights(settings.weights)
        train_files = sorted(settings.data.glob("train*.tsv.gz"))
        pools = load_pools(train_files, self.vocabulary, weights, settings.max_tokens)
        groups = stream_groups(pools, weights, settings.tokens, f"{settings.seed}/{rank}")
        self.groups = islice(groups, self.step_count, None)
        self.dev = _dev_groups(settings.data / "dev.tsv.gz", self.vocabulary, weights)

    @property
    def progress(self) -> float:
        return self.budget.progress

    def step(self) -> tuple[float, int]:
        """One update; returns the mean loss of a target token and the number of target tokens,
        both over all ranks."""
        settings = self.settings
        rate = learning_rate(
            settings.peak_rate, self.step_count, settings.warmup_steps, self.progress
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Seeded per step, so that dropout repeats exactly after a resume.
        torch.manual_seed((settings.seed * 1_000_003 + self.step_count) * 64 + self.rank)
        batch = collate(next(self.groups), self.vocabulary)
        self.optimizer.zero_grad(set_to_none=True)
        loss = token_loss(self.network, batch, settings.smoothing)
        torch.autograd.backward(loss)
        mean, tokens = self._average_gradients(float(loss.detach()), batch.target_tokens)
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimizer.step()
        self.step_count += 1
        self.target_tokens += tokens
        # A young average would mostly hold the first weights, so its memory grows with the run.
        decay = min(settings.average_decay, (1 + self.step_count) / (10 + self.step_count))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return mean, tokens

    def _average_gradients(self, loss: float, tokens: int) -> tuple[float, int]:
        """Token-weighted means over ranks. Rank 0's clock decides for all, and a stop signal that
        any rank saw reaches every rank in the same step."""
        progress = self.budget.advance() if self.rank == 0 else 0.0
        if self.settings.ranks == 1:
            return loss, tokens
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        facts = torch.tensor([tokens, loss * tokens, progress, float(self.stopping)])
        flat = torch.cat([gradient.flatten() * tokens for gradient in gradients] + [facts])
        distributed.all_reduce(flat)
        total, loss_sum, progress, stops = flat[-4:].tolist()
        flat = flat[:-4] / total
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(part.view_as(gradient))
        self.budget.progress = progress
        self.stopping = stops > 0
        return loss_sum / total, int(total)

    def run(self) -> None:
        """Train to the end, or until a stop signal; rank 0 logs and saves."""
        window, saved = Window(), time.monotonic()
        with _progress_bar(self.rank) as bar:
            task = bar.add_task("training", note="")
            while self.progress < 1 and not self.stopping:
                loss, tokens = self.step()
                window.loss += loss * tokens
                window.tokens += tokens
                note = f"step {self.step_count}, loss {loss:.2f}"
                bar.update(task, completed=100 * self.progress, note=note)
                log_due = time.monotonic() - window.since > self.settings.log_s
                if self.rank == 0 and log_due and self.progress < 1:
                    due = time.monotonic() - saved > self.settings.save_s
                    self.log(window, with_dev=due)
                    if due:
                        self.save()
                        saved = time.monotonic()
                    window = Window()
        if self.rank == 0:
            self.log(window, with_dev=True)
            self.save()

    def log(self, window: Window, with_dev: bool) -> None:
        seconds = max(time.monotonic() - window.since, 1e-9)
        line: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": self.step_count,
            "progress": round(self.progress, 4),
            "target_tokens": self.target_tokens,
            "tokens_per_s": round(window.tokens / seconds),
            "rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": round(window.loss / max(window.tokens, 1), 4),
        }
        if with_dev:
            line["dev"] = self.dev_losses()
            self.swap_average()
            line["dev_average"] = self.dev_losses()
            self.swap_average()
        with (self.settings.out / LOG_FILE).open("a") as log:
            log.write(json.dumps(line) + "\n")

    @torch.no_grad()
    def dev_losses(self) -> dict[str, float]:
        """Mean loss of a target token in nats, unsmoothed, by direction."""
        self.network.eval()
        losses = {}
        for direction, groups in self.dev.items():
            loss = tokens = 0.0
            for group in groups:
                batch = collate(group, self.vocabulary)
                loss += float(token_loss(self.network, batch, 0.0)) * batch.target_tokens
                tokens += batch.target_tokens
            losses[direction] = round(loss / tokens, 4)
        self.network.train()
        return losses

    @torch.no_grad()
    def swap_average(self) -> None:
        """Exchange the weights and their moving average."""
        for parameter, average in zip(self.parameters, self.average, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def save(self) -> None:
        """Write the state; a reader never sees half of it."""
        names = [name for name, _ in self.network.named_parameters()]
        state = {
            "config": self.network.config.to_json_string(),
            "weights": dict(zip(names, (p.detach() for p in self.parameters), strict=True)),
            "average": dict(zip(names, self.average, strict=True)),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_count,
            "target_tokens": self.target_tokens,
            "progress": self.progress,
        }
        scratch = self.settings.out / f"{STATE_FILE}.part"
        torch.save(state, scratch)
        scratch.replace(self.settings.out / STATE_FILE)

    def load(self) -> None:
        """Continue from the run's own state, if there is one."""
        path = self.settings.out / STATE_FILE
        if not path.exists():
            return
        state = torch.load(path, map_location=self.network.device, weights_only=True)
        with torch.no_grad():
            for index, (name, parameter) in enumerate(self.network.named_parameters()):
                parameter.copy_(state["weights"][name])
                self.average[index].copy_(state["average"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_count, self.target_tokens = state["step"], state["target_tokens"]
        self.budget.progress = state["progress"]


def _optimizer(parameters: list[torch.nn.Parameter], settings: Settings) -> torch.optim.AdamW:
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.peak_rate, betas=(0.9, 0.98), eps=1e-9, fused=True)


def _dev_groups(
    path: Path, vocabulary: Vocabulary, weights: dict[LanguagePair, float]
) -> dict[str, list[list[Example]]]:
    groups: dict[str, list[list[Example]]] = {}
    for pair, lines in load_pools([path], vocabulary, weights, max_tokens=200).items():
        forward = [Example(*pair, *line) for line in lines]
        for examples in (forward, [example.reversed() for example in forward]):
            examples.sort(key=lambda example: len(example.target))
            direction = f"{examples[0].source_language}>{examples[0].target_language}"
            starts = range(0, len(examples), DEV_ROWS)
            groups[direction] = [examples[start : start + DEV_ROWS] for start in starts]
    return groups


def _progress_bar(rank: int) -> Progress:
    note = TextColumn("{task.percentage:>5.1f} % {task.fields[note]}")
    return Progress(BarColumn(), note, TimeElapsedColumn(), disable=rank > 0)


def run_rank(rank: int, settings: Settings) -> None:
    """The body of one process."""
    device = "cuda" if torch.cuda.is_available() and settings.ranks == 1 else "cpu"
    if settings.ranks > 1:
        # Two threads in one process cost three times the CPU of two processes with one each.
        torch.set_num_threads(1)
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{(settings.out / 'rendezvous').resolve()}",
            rank=rank,
            world_size=settings.ranks,
            timeout=COLLECTIVE_TIMEOUT,
        )
    trainer = Trainer(settings, rank, device)
    signal.signal(signal.SIGTERM, lambda *_: setattr(trainer, "stopping", True))
    if settings.ranks > 1:
        distributed.barrier()
    trainer.run()
    if settings.ranks > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def train(settings: Settings) -> None:
    """Run every rank to the end; the process group's id goes to `train.pgid`, so that
    `kill -STOP -- -$(cat train.pgid)` pauses a run and `-CONT` resumes it."""
    settings.out.mkdir(parents=True, exist_ok=True)
    (settings.out / "rendezvous").unlink(missing_ok=True)
    facts = json.dumps(asdict(settings), default=str, indent=1)
    (settings.out / SETTINGS_FILE).write_text(facts + "\n")
    (settings.out / "train.pgid").write_text(f"{os.getpgid(0)}\n")
    if settings.ranks == 1:
        run_rank(0, settings)
        return
    # The ranks get the signal too (it is sent to the group); this process waits for them to save.
    signal.signal(signal.SIGTERM, lambda *_: None)
    os.environ.setdefault("GLIBC_TUNABLES", MALLOC_TUNABLES)
    spawn(run_rank, (settings,), nprocs=settings.ranks)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    train(parse_arguments())
