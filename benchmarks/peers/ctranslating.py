"""M2M100 through CTranslate2 and SentencePiece, as CTranslate2's documentation shows it: one call
with a list of token lists, computing in its own thread while other calls wait in its queue."""

from pathlib import Path

import ctranslate2
import sentencepiece


class Translator:
    """A model of ``benchmarks/argos`` and its pieces."""

    def __init__(self, folder: Path, pieces: Path, beams: int, threads: int) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
        self._translator = ctranslate2.Translator(
            str(folder), device="cpu", inter_threads=1, intra_threads=threads
        )
        self._beams = beams

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        tokens = [
            [f">>{source}<<", *self._pieces.encode(text, out_type=str), "</s>"] for text in texts
        ]
        found = self._translator.translate_batch(
            tokens,
            target_prefix=[[f">>{target}<<"]] * len(texts),
            beam_size=self._beams,
            max_decoding_length=199,
        )
        return [str(self._pieces.decode(result.hypotheses[0][1:])).strip() for result in found]
