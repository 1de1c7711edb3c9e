from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

from models.training.package import package
from models.training.settings import LOG_FILE, SETTINGS_FILE, STATE_FILE, Settings
from models.training.train import Trainer, train

SMALL = Path(__file__).parents[2] / "models" / "small"
MAX_SHIPPED_BYTES = 25_000_000


def weights_of(trainer: Trainer) -> list[torch.Tensor]:
    return [*(p.detach().clone() for p in trainer.parameters), *trainer.average]


def test_a_resumed_run_equals_an_uninterrupted_one(settings: Settings, tmp_path: Path) -> None:
    whole = Trainer(settings)
    losses = [whole.step() for _ in range(6)]

    interrupted = replace(settings, out=tmp_path / "interrupted")
    interrupted.out.mkdir()
    first = Trainer(interrupted)
    resumed_losses = [first.step() for _ in range(3)]
    first.save()
    second = Trainer(interrupted)
    assert (second.step_count, second.progress) == (3, 3 / 8)
    resumed_losses += [second.step() for _ in range(3)]

    assert resumed_losses == losses
    for resumed, expected in zip(weights_of(second), weights_of(whole), strict=True):
        assert torch.equal(resumed, expected)


def test_training_lowers_the_loss_and_logs_it(settings: Settings) -> None:
    train(replace(settings, steps=30, peak_rate=5e-3))
    (line,) = map(json.loads, (settings.out / LOG_FILE).read_text().splitlines())
    assert line["step"] == 30
    assert set(line["dev"]) == set(line["dev_average"]) == {"en>ja", "ja>en"}
    assert line["train_loss"] < 8.5, "ln(8112) = 9.0 is what an untrained network has"


def test_a_stop_signal_saves(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.out.mkdir()
    trainer = Trainer(settings)
    step = Trainer.step

    def step_and_stop(self: Trainer) -> tuple[float, int]:
        self.stopping = self.step_count == 1
        return step(self)

    monkeypatch.setattr(Trainer, "step", step_and_stop)
    trainer.run()
    assert torch.load(settings.out / STATE_FILE, weights_only=True)["step"] == 2


def test_settings_want_one_measure_of_length(settings: Settings) -> None:
    with pytest.raises(ValueError, match="either steps or minutes"):
        replace(settings, minutes=1.0)


def test_a_run_becomes_a_checkpoint(settings: Settings, tmp_path: Path) -> None:
    settings.out.mkdir()
    train(replace(settings, steps=1))
    assert json.loads((settings.out / SETTINGS_FILE).read_text())["steps"] == 1
    out = tmp_path / "checkpoint"
    package(settings.out, out)
    assert json.loads((out / "languages.json").read_text()) == ["de", "en", "ja"]
    network = M2M100ForConditionalGeneration.from_pretrained(out, local_files_only=True)
    assert network.dtype == torch.float16
    saved = torch.load(settings.out / STATE_FILE, weights_only=True)["average"]
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, saved[name].half()), name


def test_the_shipped_checkpoint_translates_and_says_what_it_knows() -> None:
    assert sum(file.stat().st_size for file in SMALL.iterdir()) <= MAX_SHIPPED_BYTES
    languages = json.loads((SMALL / "languages.json").read_text())
    scored = json.loads((SMALL / "scores.json").read_text())
    assert languages == sorted({language for name in scored for language in name.split(">")})
    tokenizer = M2M100Tokenizer.from_pretrained(SMALL, local_files_only=True, src_lang="en")
    network = M2M100ForConditionalGeneration.from_pretrained(
        SMALL, dtype=torch.float32, local_files_only=True
    )
    ids = network.generate(
        **tokenizer("Where is the station?", return_tensors="pt"),
        forced_bos_token_id=tokenizer.get_lang_id("ja"),
    )
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == ["駅はどこですか。"]
