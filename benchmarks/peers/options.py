"""What every peer is told, and the translator that follows from it. Runs in each peer's own
environment, so heavy libraries are imported only where they are meant to be."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

Translate = Callable[[list[str], str, str], list[str]]  # texts, source, target
Asked = tuple[str, str, str]  # text, source, target


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--ctranslate2", type=Path, help="a model for CTranslate2 instead of torch")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batch-wait-s", type=float, default=0.01)
    return parser.parse_args()


def translator(given: argparse.Namespace) -> Translate:
    if given.ctranslate2:
        from ctranslating import Translator as CTranslating

        pieces = given.checkpoint / "sentencepiece.bpe.model"
        return CTranslating(given.ctranslate2, pieces, given.beams, given.threads).translate
    import torch

    from benchmarks.generating import Translator as Generating

    torch.set_num_threads(given.threads)
    return Generating(given.checkpoint, given.beams).translate


def together(translate: Translate, asked: Sequence[Asked]) -> list[str]:
    """Translates a batch: requests of one pair in one call, answers in order."""
    answers = [""] * len(asked)
    for pair in dict.fromkeys(one[1:] for one in asked):
        places = [at for at, one in enumerate(asked) if one[1:] == pair]
        texts = translate([asked[at][0] for at in places], *pair)
        for at, text in zip(places, texts, strict=True):
            answers[at] = text
    return answers
