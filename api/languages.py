"""The languages a model speaks: their English names, and what a caller who wrote another code may
have meant."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from api.openapi import JSON, Answer, Operation, problem
from api.problems import Problem
from api.schemas import Language, Languages
from api.service import service_of
from broker.wire import ModelEntry

MOST_NEAR = 3
LEAST_LIKENESS = 0.6
PAIR_FIELDS: Final = ("payload.fromLang", "payload.toLang")

# The hundred languages of M2M100 (Fan et al. 2020, arXiv:2010.11125, table 1).
NAMES: Final = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "ast": "Asturian", "az": "Azerbaijani",
    "ba": "Bashkir", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "br": "Breton",
    "bs": "Bosnian", "ca": "Catalan", "ceb": "Cebuano", "cs": "Czech", "cy": "Welsh",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "ff": "Fulah", "fi": "Finnish", "fr": "French",
    "fy": "Western Frisian", "ga": "Irish", "gd": "Scottish Gaelic", "gl": "Galician",
    "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "ht": "Haitian Creole", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "ig": "Igbo",
    "ilo": "Iloko", "is": "Icelandic", "it": "Italian", "ja": "Japanese", "jv": "Javanese",
    "ka": "Georgian", "kk": "Kazakh", "km": "Khmer", "kn": "Kannada", "ko": "Korean",
    "lb": "Luxembourgish", "lg": "Ganda", "ln": "Lingala", "lo": "Lao", "lt": "Lithuanian",
    "lv": "Latvian", "mg": "Malagasy", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian",
    "mr": "Marathi", "ms": "Malay", "my": "Burmese", "ne": "Nepali", "nl": "Dutch",
    "no": "Norwegian", "ns": "Northern Sotho", "oc": "Occitan", "or": "Odia", "pa": "Punjabi",
    "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sd": "Sindhi", "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "so": "Somali",
    "sq": "Albanian", "sr": "Serbian", "ss": "Swati", "su": "Sundanese", "sv": "Swedish",
    "sw": "Swahili", "ta": "Tamil", "th": "Thai", "tl": "Tagalog", "tn": "Tswana",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese",
    "wo": "Wolof", "xh": "Xhosa", "yi": "Yiddish", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip

# Country codes, other standards' codes and other names that callers write.
ALIASES: Final = {
    "jp": "ja", "jpn": "ja", "cn": "zh", "chi": "zh", "zho": "zh", "cmn": "zh", "mandarin": "zh",
    "kr": "ko", "kor": "ko", "gr": "el", "cz": "cs", "ua": "uk", "dk": "da", "se": "sv",
    "br": "pt", "at": "de", "ger": "de", "deu": "de", "gb": "en", "us": "en", "eng": "en",
    "fre": "fr", "fra": "fr", "spa": "es", "mx": "es", "rus": "ru", "ara": "ar", "por": "pt",
    "ita": "it", "nb": "no", "nn": "no", "nob": "no", "iw": "he", "in": "id", "ji": "yi",
    "jw": "jv", "fil": "tl", "nso": "ns", "farsi": "fa", "ir": "fa", "gaelic": "gd", "mo": "ro",
    "sh": "sr", "flemish": "nl", "castilian": "es", "hindustani": "hi", "bangla": "bn",
}  # fmt: skip


def named(code: str) -> Language:
    """A code with its name; a checkpoint may know codes that the table does not."""
    return Language(code, NAMES.get(code, code))


def near(written: str, spoken: Collection[str]) -> list[Language]:
    """Languages out of ``spoken`` that the writer of ``written`` may have meant, best first."""
    word = written.strip().casefold().replace("_", "-")
    head = word.partition("-")[0]
    names = {NAMES.get(code, code).casefold(): code for code in spoken}
    guesses = [word, head, ALIASES.get(word, ""), ALIASES.get(head, ""), names.get(word, "")]
    guesses += [names[name] for name in get_close_matches(word, names, MOST_NEAR, LEAST_LIKENESS)]
    guesses += get_close_matches(head, spoken, MOST_NEAR, LEAST_LIKENESS)
    found = dict.fromkeys(code for code in guesses if code in spoken)
    return [named(code) for code in list(found)[:MOST_NEAR]]


def check_pair(
    entry: ModelEntry, source: str, target: str, fields: tuple[str, str] = PAIR_FIELDS
) -> None:
    """Raises a 422 Problem, which names one of ``fields``, unless the model translates ``source``
    into ``target``."""
    for field, written in zip(fields, (source, target), strict=True):
        if written not in entry.languages:
            raise _unknown(entry, field, written)
    if source == target:
        raise Problem(
            422,
            "same_language",
            f"{fields[0]} and {fields[1]} are the same language. Choose two.",
            field=fields[1],
        )


def _unknown(entry: ModelEntry, field: str, written: str) -> Problem:
    meant = near(written, entry.languages)
    hint = "".join(f" {language.code} ({language.name})," for language in meant).rstrip(",")
    detail = f"{field} is not a language of the model {entry.name}."
    detail += f" Near:{hint}." if meant else ""
    return Problem(
        422,
        "unknown_language",
        f"{detail} GET /languages lists all {len(entry.languages)}.",
        field=field,
        members={"near": meant} if meant else {},
    )


async def list_languages(request: Request) -> Response:
    """Answers what the broker's model entry says, which needs no live worker."""
    entry = await service_of(request).catalogue.entry()
    languages = [named(code) for code in entry.languages]
    answer = Languages(entry.name, entry.revision, languages)
    return Response(msgspec.json.encode(answer), media_type=JSON)


OPERATIONS = (
    Operation(
        "GET",
        "/languages",
        list_languages,
        "Languages",
        "Every language that may be source or target. Works while no worker is alive, once one has"
        " announced the model.",
        "Translation",
        answers=(
            Answer(200, "The languages.", "Languages"),
            problem(
                503, "No worker ever announced the model, or Redis is away.", Retry_After="Seconds."
            ),
        ),
    ),
)
