"""How well a checkpoint translates: beam search over the held-out test set, scored per direction
with sacreBLEU and chrF, and a fixed list of sentences for people to read."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sacrebleu
import torch
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

from models.training.tsv import read_pairs

BATCH_ROWS = 50
# None of these is in the training data; they go from everyday to more than a small model can do.
SAMPLES = (
    ("en", "ja", "Life is like a box of chocolates."),
    ("ja", "en", "人生はチョコレートの箱のようなものだ。"),
    ("en", "ja", "Is there a post office near the hotel?"),
    ("en", "ja", "My sister bought a new bicycle yesterday."),
    ("en", "ja", "Please turn off the lights before you go to bed."),
    ("en", "ja", "The committee postponed its decision on the budget."),
    ("ja", "en", "昨日、駅前で古い友達に会いました。"),
    ("ja", "en", "父は毎朝六時に起きて新聞を読む。"),
    ("ja", "en", "この薬は食後に飲んでください。"),
    ("ja", "en", "政府は来年度の予算案を発表した。"),
    ("en", "de", "We are going to the sea this weekend."),
    ("en", "de", "The mechanic says that the engine needs a new filter."),
    ("de", "en", "Kannst du mir bitte das Salz geben?"),
    ("de", "en", "Der Zug nach Hamburg fährt heute leider nicht."),
    ("en", "fr", "My brother is learning to play the piano."),
    ("fr", "en", "Je voudrais un café sans sucre."),
    ("en", "es", "I forgot my umbrella on the bus."),
    ("es", "en", "¿A qué hora abre la biblioteca?"),
    ("ja", "de", "明日の会議は何時に始まりますか。"),
    ("fr", "ja", "Il pleut depuis trois jours."),
)


@dataclass(frozen=True)
class Direction:
    """The test sentences of one direction."""

    source_language: str
    target_language: str
    sources: list[str]
    references: list[str]

    @property
    def name(self) -> str:
        return f"{self.source_language}>{self.target_language}"


class Translator:
    """A checkpoint folder behind transformers' own `generate`, in float32."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = M2M100Tokenizer.from_pretrained(folder, local_files_only=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network: Any = M2M100ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).to(device)
        self.network.eval()

    @torch.inference_mode()
    def translate(self, texts: list[str], source: str, target: str, beams: int) -> list[str]:
        """Translations in the order of `texts`."""
        self.tokenizer.src_lang = source
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        translations = [""] * len(texts)
        for start in range(0, len(texts), BATCH_ROWS):
            rows = by_length[start : start + BATCH_ROWS]
            inputs = self.tokenizer([texts[row] for row in rows], return_tensors="pt", padding=True)
            output = self.network.generate(
                **inputs.to(self.network.device),
                forced_bos_token_id=self.tokenizer.get_lang_id(target),
                num_beams=beams,
            )
            decoded = self.tokenizer.batch_decode(output, skip_special_tokens=True)
            for row, text in zip(rows, decoded, strict=True):
                translations[row] = text
        return translations


def read_directions(path: Path) -> list[Direction]:
    """Every language pair of `path` in both directions, the ones with most sentences first."""
    sides: dict[tuple[str, str], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for pair in read_pairs(path):
        for source, target in ((0, 1), (1, 0)):
            texts = sides[pair[source], pair[target]]
            texts[0].append(pair[2 + source])
            texts[1].append(pair[2 + target])
    directions = [Direction(*languages, *texts) for languages, texts in sides.items()]
    return sorted(directions, key=lambda d: (-len(d.sources), "en" not in d.name, d.name))


def score(direction: Direction, hypotheses: list[str]) -> dict[str, float]:
    """BLEU (Japanese: over MeCab's words, and over characters) and chrF, 0 to 100."""
    references = [direction.references]
    japanese = direction.target_language == "ja"
    words = sacrebleu.corpus_bleu(
        hypotheses, references, tokenize="ja-mecab" if japanese else "13a"
    )
    scores = {
        "n": len(hypotheses),
        "bleu": round(words.score, 2),
        "chrf": round(sacrebleu.corpus_chrf(hypotheses, references).score, 2),
    }
    if japanese:
        characters = sacrebleu.corpus_bleu(hypotheses, references, tokenize="char")
        scores["bleu_char"] = round(characters.score, 2)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a checkpoint on the held-out test set.")
    parser.add_argument("--model", type=Path, default=Path("models/small"))
    parser.add_argument("--test", type=Path, default=Path("data/test.tsv.gz"))
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the scores here as JSON")
    parser.add_argument("--samples", action="store_true", help="translate the sample list instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    translator = Translator(args.model)
    if args.samples:
        print("| from | to | source | translation |\n|---|---|---|---|")
        for source, target, text in SAMPLES:
            (translation,) = translator.translate([text], source, target, args.beams)
            print(f"| {source} | {target} | {text} | {translation} |")
        return
    scores = {}
    print("| direction | sentences | BLEU | BLEU (characters) | chrF |\n|---|---|---|---|---|")
    for direction in read_directions(args.test):
        hypotheses = translator.translate(
            direction.sources, direction.source_language, direction.target_language, args.beams
        )
        result = scores[direction.name] = score(direction, hypotheses)
        characters = result.get("bleu_char", "")
        print(
            f"| {direction.name} | {result['n']} | {result['bleu']} | {characters} "
            f"| {result['chrf']} |",
            flush=True,
        )
    if args.out is not None:
        args.out.write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
