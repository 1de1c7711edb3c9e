"""Languages told apart by their commonest words, for translations that came out in another one.

Only the words of languages in Latin script are listed: others show by their letters. A sentence
counts as another language's if it has several of that one's words and none of its own.
"""

import re

_COMMON = {
    "en": "the and of to is was are you that it he she they we with his her this have not for my"
    " what do did does were been would could will there from had has your at",
    "de": "der die das und ist nicht ich du er sie wir ihr ein eine einen einem einer zu mit auf"
    " den dem des sich war haben hat habe auch es im von dass bin sind wird kann",
    "fr": "le la les et est pas je tu il elle nous vous un une des du de que qui dans avec pour sur"
    " ce cette mon ma son sa ses au aux ne suis sont était être plus",
    "es": "el la los las y es no yo un una de del que en con por para su sus se al lo mi me está"
    " son muy pero como más hay fue era ha",
    "it": "il lo la gli le e è non un una di del della che in con per si mi ha ho sono al alla nel"
    " questo molto come più era anche",
    "pt": "o a os as e é não eu um uma de do da que em com por para se ao na no meu minha está são"
    " muito mas como mais foi você ele ela",
    "nl": "de het een en is niet ik je hij zij ze we wij van in op met te dat die voor zijn was"
    " heeft hebben ook er aan naar mijn",
    "sv": "och att det som en ett är inte jag du han hon vi på av för med till den har var om mig"
    " min sin",
    "da": "og at det som en et er ikke jeg du han hun vi på af for med til den har var om mig min"
    " sin",
    "no": "og at det som en et er ikke jeg du han hun vi på av for med til den har var om meg min"
    " sin",
    "pl": "i w z na nie się jest to że do jak co ja ty on ona my jego jej tak był była czy za po",
}
_WORD = re.compile(r"[^\W\d_]+")

LEAST_WORDS = 4
LEAST_HITS = 3
LEAST_SHARE = 0.4


def _by_word() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for language, words in _COMMON.items():
        for word in words.split():
            found[word] = (*found.get(word, ()), language)
    return found


_LANGUAGES = _by_word()


def words(text: str) -> list[str]:
    """The words of a text in small letters."""
    return _WORD.findall(text.casefold())


def foreign(found: list[str], target: str) -> bool:
    """Whether the words are those of another language than ``target``."""
    if len(found) < LEAST_WORDS:
        return False
    hits: dict[str, list[str]] = {}
    for word in found:
        for language in _LANGUAGES.get(word, ()):
            if language == target:
                return False
            hits.setdefault(language, []).append(word)
    most = max(hits.values(), key=len, default=[])
    if len(most) < LEAST_HITS or len(most) < LEAST_SHARE * len(found):
        return False
    return len(set(most)) > 1  # "Ja, ja, ja!" has many meanings
