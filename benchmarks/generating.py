"""M2M100 through transformers alone, as the model card shows it."""

from pathlib import Path

import torch
import transformers
from transformers import M2M100ForConditionalGeneration, M2M100Tokenizer

transformers.utils.logging.disable_progress_bar()


class Translator:
    """The model and its tokenizer."""

    def __init__(self, folder: Path, beams: int) -> None:
        self._tokenizer = M2M100Tokenizer.from_pretrained(folder, local_files_only=True)
        self._model = M2M100ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
        self._beams = beams

    def translate(self, texts: list[str], source: str, target: str) -> list[str]:
        self._tokenizer.src_lang = source
        encoded = self._tokenizer(texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            found = self._model.generate(
                **encoded,
                forced_bos_token_id=self._tokenizer.get_lang_id(target),
                num_beams=self._beams,
                max_length=200,
            )
        texts = self._tokenizer.batch_decode(found, skip_special_tokens=True)
        return [text.strip() for text in texts]
