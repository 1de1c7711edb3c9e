"""Tests of ``inference_worker.tokens`` against transformers' M2M100Tokenizer."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import M2M100Tokenizer
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from inference_worker.languages import M2M100_CODES, WMT21_CODES
from inference_worker.tokens import Vocabulary, VocabularyError

SENTENCES = {
    "en": ["Life is like a box of chocolates.", "It's 3:45 p.m.; isn't it?", "  two  spaces ", "x"],
    "ja": [
        "人生はチョコレートの箱のようなものだ。",
        "ﾊﾝｶｸと全角ＡＢＣ１２３",
        "「はい」と彼は言った！？",
    ],
    "de": ["Der Fluß fließt über Äcker.", "Straßenbahnhaltestellenschild"],
    "fr": ["L’été où j’ai vu « ça »…", "Cœur, naïve, garçon"],
    "es": ["¿Dónde está el niño?", "¡Qué pingüino!"],
    "nl": ["Hij is 's ochtends ziek.", "reünie"],
    "sv": ["Åsa äter ärtor på ön."],
}
UNUSUAL = [
    "__ja__ __en__",
    "</s><s><pad><unk>",
    "a </s> b",
    "<0x41> <0x00>",
    "madeupvocab8000 madeupword0000",
    "▁▁ x ▁y",
    "\x00\x07\x7f",
    "e\u0301 \u200b\u200d\ufeff\u00ad",
    "😀👩‍👩‍👧‍👦🇯🇵",
    "𠮷野家 𝔄𝔅",
    "नमस्ते Привет مرحبا สวัสดี 안녕",
    "\u2047 ⁇",
    "\uffff\ufdd0",
    "",
    " ",
]

ALL = [text for texts in SENTENCES.values() for text in texts] + UNUSUAL


@pytest.fixture(scope="module")
def reference(small: Path) -> M2M100Tokenizer:
    return M2M100Tokenizer.from_pretrained(small)


@pytest.fixture(scope="module")
def facebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer laid out as facebook/m2m100_418M ships it: no byte fallback, pieces that
    ``vocab.json`` lacks, a word it has that SentencePiece does not know, no list of languages."""
    folder = tmp_path_factory.mktemp("facebook")
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(" ".join(SENTENCES[code]) for code in SENTENCES) * 3)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "sp"),
        vocab_size=220,
        model_type="bpe",
        character_coverage=1.0,
        user_defined_symbols=["__ja__", "<pad>"],
        minloglevel=2,
    )
    (folder / "sp.model").rename(folder / "sentencepiece.bpe.model")
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "sentencepiece.bpe.model")
    )
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for at in range(pieces.get_piece_size()):
        piece = pieces.id_to_piece(at)
        if piece not in ("▁l", "__ja__"):
            vocabulary.setdefault(piece, len(vocabulary))
    vocabulary["𠮷"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


def hf(tokenizer: M2M100Tokenizer, text: str) -> list[int]:
    """The ids of the reference, without its own splitting of the text at special tokens."""
    return tokenizer.convert_tokens_to_ids(tokenizer._tokenize(text))


def test_languages_are_numbered_as_transformers_numbers_them(
    vocabulary: Vocabulary, reference: M2M100Tokenizer
) -> None:
    assert list(M2M100_CODES) == FAIRSEQ_LANGUAGE_CODES["m2m100"]
    assert list(WMT21_CODES) == FAIRSEQ_LANGUAGE_CODES["wmt21"]
    assert [vocabulary.language(code) for code in M2M100_CODES] == [
        reference.get_lang_id(code) for code in M2M100_CODES
    ]
    assert vocabulary.size == 8104


@pytest.mark.parametrize("text", ALL)
def test_ids_are_those_of_transformers(
    vocabulary: Vocabulary, reference: M2M100Tokenizer, text: str
) -> None:
    assert vocabulary.pieces(text) == hf(reference, text)
    assert vocabulary.count(text) == len(vocabulary.pieces(text)) + 2


@given(text=st.text(max_size=40))
def test_ids_of_any_text_are_those_of_transformers(
    vocabulary: Vocabulary, reference: M2M100Tokenizer, text: str
) -> None:
    ids = vocabulary.pieces(text)
    assert ids == hf(reference, text)
    assert not set(ids) & {vocabulary.begin, vocabulary.pad, vocabulary.end}
    assert max(ids, default=0) < min(vocabulary.language(code) for code in M2M100_CODES)
    assert vocabulary.decode(ids) == reference.decode(ids)


@pytest.mark.parametrize("language", sorted(SENTENCES))
def test_whole_sentences_are_encoded_as_transformers_does(
    vocabulary: Vocabulary, reference: M2M100Tokenizer, language: str
) -> None:
    reference.src_lang = language
    for text in SENTENCES[language]:
        encoded = vocabulary.encode(text, language)
        assert list(encoded.ids) == reference(text)["input_ids"]
        assert encoded.unknown == 0


def test_special_tokens_leave_no_trace_in_text(
    vocabulary: Vocabulary, reference: M2M100Tokenizer
) -> None:
    ids = [2, vocabulary.language("ja"), *vocabulary.pieces("Good morning."), 3, 1, 2, 8111, 9999]
    assert vocabulary.decode(ids) == "Good morning."
    assert reference.decode(ids[:-2], skip_special_tokens=True) == "Good morning."


@pytest.mark.parametrize("text", ALL)
def test_a_checkpoint_without_byte_fallback(facebook: Path, text: str) -> None:
    reference = M2M100Tokenizer(facebook / "vocab.json", facebook / "sentencepiece.bpe.model")
    vocabulary = Vocabulary(facebook)
    expected = hf(reference, text)
    control = {vocabulary.begin, vocabulary.pad, vocabulary.end, vocabulary.language("ja")}
    expected = [vocabulary.unknown if at in control else at for at in expected]
    assert vocabulary.pieces(text) == expected
    decoded = [at for at in expected if at != vocabulary.unknown]
    assert vocabulary.decode(expected) == reference.decode(decoded)


def test_pieces_the_model_has_never_seen_are_counted(facebook: Path) -> None:
    vocabulary = Vocabulary(facebook)
    assert "▁l" not in json.loads((facebook / "vocab.json").read_text())
    assert vocabulary.encode("l", "de").unknown == 1
    assert vocabulary.encode("Привет", "ru").unknown == 1
    assert vocabulary.encode("𠮷", "ja").unknown == 0
    assert vocabulary.languages == tuple(sorted(M2M100_CODES))


def test_what_the_model_has_never_seen_can_be_respelled(small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small, tmp_path / "model"))
    numbers = json.loads((folder / "vocab.json").read_text())
    # Another name, not none: the languages are numbered behind the pieces.
    renamed = {f"gone {at}" if piece == "▁station" else piece: at for piece, at in numbers.items()}
    (folder / "vocab.json").write_text(json.dumps(renamed))
    whole, reduced = Vocabulary(small), Vocabulary(folder)
    text = "Where is the station?"
    assert reduced.encode(text, "en").unknown == 1
    respelled = reduced.respelled(text, "en")
    assert respelled.unknown == 0
    assert whole.decode(respelled.ids) == text
    assert whole.respelled(text, "en") == whole.encode(text, "en")


def test_encoding_from_many_threads_gives_the_same_ids(vocabulary: Vocabulary) -> None:
    texts = [f"{text} {n}" for n in range(20) for texts in SENTENCES.values() for text in texts]
    expected = [vocabulary.encode(text, "en") for text in texts]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda text: vocabulary.encode(text, "en"), texts))
    assert found == expected


def copied(small: Path, folder: Path) -> Path:
    for name in ("vocab.json", "sentencepiece.bpe.model", "tokenizer_config.json"):
        (folder / name).write_bytes((small / name).read_bytes())
    return folder


def test_languages_come_from_the_checkpoint(small: Path, tmp_path: Path) -> None:
    folder = copied(small, tmp_path)
    assert len(Vocabulary(folder).languages) == 100
    (folder / "languages.json").write_text('["ja", "en"]')
    assert Vocabulary(folder).languages == ("en", "ja")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("vocab.json", None, "no usable tokenizer"),
        ("vocab.json", "{", "no usable tokenizer"),
        ("vocab.json", '{"a": 0}', "lacks"),
        ("sentencepiece.bpe.model", "", "no usable tokenizer"),
        ("tokenizer_config.json", "{", "not JSON"),
        ("tokenizer_config.json", '{"language_codes": "latin"}', "numbers languages as 'latin'"),
        ("languages.json", "{", "not JSON"),
        ("languages.json", '["en", "tlh"]', "must be a list of language codes"),
        ("languages.json", "[]", "must be a list of language codes"),
    ],
)
def test_broken_tokenizer_files_are_named(
    small: Path, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    folder = copied(small, tmp_path)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(VocabularyError, match=message):
        Vocabulary(folder)
