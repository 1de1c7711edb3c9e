"""The bundled model for programs that know CTranslate2 and text: the same int8 weights as our own
engine has, with a vocabulary of pieces instead of numbers, alone or in a package of Argos
Translate, from which LibreTranslate serves.

A multilingual model wants to be told the source language in front of the source and the target
language in front of the target. Argos packages know a target prefix; the source language is made
the token that CTranslate2 puts in front of every source, so there is one package for each pair.
"""

import json
from pathlib import Path
from shutil import copyfile, copytree, rmtree

from benchmarks.workload import SMALL
from inference_worker.engine.ctranslate.cache import cached_model
from inference_worker.engine.ctranslate.model import build
from inference_worker.languages import NUMBERINGS
from inference_worker.tokens import PIECES_FILE, VOCABULARY_FILE

VOCABULARY = "shared_vocabulary.json"
QUANTIZATION = "int8"


def language_token(code: str) -> str:
    """How the model's vocabulary spells a language. Not ``__en__``: Argos takes underscores for
    spaces."""
    return f">>{code}<<"


def write_model(folder: Path, cache: Path, source: str = "") -> None:
    """A CTranslate2 model that takes pieces; with ``source``, always from that language and with
    the end added, else with both left to the caller."""
    rmtree(folder, ignore_errors=True)
    copytree(cached_model(SMALL, cache, QUANTIZATION, build), folder)
    count = len(json.loads((folder / VOCABULARY).read_bytes()))
    (folder / VOCABULARY).write_text(json.dumps(pieces(count), ensure_ascii=False), "utf-8")
    config = json.loads((folder / "config.json").read_bytes())
    config |= {
        "add_source_bos": bool(source),
        "add_source_eos": bool(source),
        "bos_token": language_token(source) if source else "<s>",
        "eos_token": "</s>",
        "decoder_start_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def pieces(count: int) -> list[str]:
    """The texts of token ids from 0 on."""
    numbers: dict[str, int] = json.loads((SMALL / VOCABULARY_FILE).read_bytes())
    found = [f"<unused {at}>" for at in range(count)]
    for piece, at in numbers.items():
        found[at] = piece
    for at, code in enumerate(NUMBERINGS["m2m100"], start=len(numbers)):
        found[at] = language_token(code)
    return found


def write_package(packages: Path, cache: Path, source: str, target: str) -> None:
    """A package of Argos Translate for one pair, in the folder where it looks for them."""
    folder = packages / f"{source}_{target}"
    write_model(folder / "model", cache, source)
    copyfile(SMALL / PIECES_FILE, folder / "sentencepiece.model")
    metadata = {
        "package_version": "1.0",
        "argos_version": "1.9",
        "from_code": source,
        "from_name": source,
        "to_code": target,
        "to_name": target,
        "target_prefix": language_token(target),
    }
    (folder / "metadata.json").write_text(json.dumps(metadata), "utf-8")
