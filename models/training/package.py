"""From a run's state to a checkpoint that ships: float16 safetensors, the tokenizer files,
generation defaults like those of facebook/m2m100_418M, the languages it was trained on and the
data's licence."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, M2M100Config, M2M100ForConditionalGeneration

from models.training.data import parse_weights
from models.training.settings import SETTINGS_FILE, STATE_FILE
from models.training.tokenizer import EOS, PAD, TOKENIZER_FILES

LANGUAGES_FILE = "languages.json"
LICENSE_FILE = "LICENSE-DATA.txt"
LICENSE_TEXT = """\
Weights and tokenizer were trained on sentences by Tatoeba contributors (https://tatoeba.org),
CC BY 2.0 FR, https://creativecommons.org/licenses/by/2.0/fr/ ; the text was normalised and
filtered. See models/README.md.
"""


def package(run: Path, out: Path, weights: str = "average") -> None:
    """Write the checkpoint of `run` into `out`. `weights` is `average` (the moving average) or
    `weights` (the last step); raises FileNotFoundError if the run has saved nothing."""
    settings = json.loads((run / SETTINGS_FILE).read_text("utf-8"))
    state = torch.load(run / STATE_FILE, map_location="cpu", weights_only=True)
    network = M2M100ForConditionalGeneration(M2M100Config.from_dict(json.loads(state["config"])))
    loaded = network.load_state_dict(state[weights], strict=False)
    tied = {"lm_head.weight", "model.encoder.embed_tokens.weight"}
    tied |= {"model.decoder.embed_tokens.weight"}
    if loaded.unexpected_keys or set(loaded.missing_keys) - tied:
        raise ValueError(f"{run} does not hold this network: {loaded}")
    network.tie_weights()
    network.generation_config = GenerationConfig(
        bos_token_id=0,
        decoder_start_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
        num_beams=5,
        max_length=200,
        early_stopping=True,
    )
    network.half().save_pretrained(out)
    for name in TOKENIZER_FILES:
        shutil.copyfile(Path(settings["tokenizer"], name), out / name)
    languages = sorted(
        {language for pair in parse_weights(settings["weights"]) for language in pair}
    )
    (out / LANGUAGES_FILE).write_text(json.dumps(languages) + "\n")
    (out / LICENSE_FILE).write_text(LICENSE_TEXT)


def main() -> None:
    parser = argparse.ArgumentParser(description="Turn a training run into a checkpoint.")
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", choices=["average", "weights"], default="average")
    args = parser.parse_args()
    package(args.run, args.out, args.weights)
    for file in sorted(args.out.iterdir()):
        print(f"{file.stat().st_size:>10} {file.name}")


if __name__ == "__main__":
    main()
