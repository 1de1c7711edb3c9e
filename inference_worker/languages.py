"""What the model tier knows about languages: the codes M2M100 numbers, and how each writes."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The order is the numbering: language i is token len(vocabulary) + i.
_M2M100 = (
    "af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha"
    " he hi hr ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my"
    " ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz"
    " vi wo xh yi yo zh zu"
)
M2M100_CODES: tuple[str, ...] = tuple(_M2M100.split())
WMT21_CODES: tuple[str, ...] = ("en", "ha", "is", "ja", "cs", "ru", "zh", "de")
NUMBERINGS = {"m2m100": M2M100_CODES, "wmt21": WMT21_CODES}

# No space follows a sentence. Thai, Lao, Khmer and Burmese have none between words, but do put one
# between sentences, so they are not here.
_UNSPACED = frozenset({"ja", "zh"})

# "3. Oktober": a full stop after digits makes an ordinal number.
_ORDINAL_DOT = _words("bs cs da de et fi hr hu is lb lv no pl sk sl sr tr")

# Words before whose full stop a sentence goes on, lower case. Single letters ("J.", "z.") need no
# list, nor does anything that a small letter follows. "etc.", "a.m." and "Inc." end sentences as
# often as not and are left out.
_ABBREVIATIONS_ANYWHERE = _words(
    "dr prof st mr mrs ms rev gen col sgt capt lt maj hon messrs mt ft gov sen rep vs cf approx"
    " dept e.g i.e u.s u.k"
)
_ABBREVIATIONS: dict[str, frozenset[str]] = {
    "de": _words(
        "bzw usw ggf evtl vgl bspw sog inkl exkl zzgl hr fr frl hrsg ing mio mrd str z.b d.h u.a"
        " o.ä v.a s.o s.u i.d.r"
    ),
    "fr": _words("m mm mme mmes mlle mlles me env av p.ex c.-à-d n.b"),
    "es": _words("sr sra sres srta sres d dña ud uds vd vds p.ej ee.uu avda"),
    "it": _words("sig sigg sig.ra dott avv geom ecc p.es"),
    "pt": _words("sr sra srta exmo exma p.ex"),
    "nl": _words("dhr mevr mw bijv m.b.t d.w.z o.a t.a.v a.u.b drs ir"),
    "sv": _words("t.ex bl.a m.m d.v.s"),
    "ru": _words("г гг т.е т.к ул им др пр см стр руб тыс млн млрд"),
    "pl": _words("np tzn tj ul godz"),
}
# Those that need the number they announce: "No. 5", "Jan. 3", but "No. I will not."
_BEFORE_NUMBERS = _words(
    "no nos nr núm vol vols fig figs eq p pp pg pag pág págs s ch chap sec art abs bd abb cap tel"
    " jan feb mar apr jun jul aug sep sept oct nov dec"
)


def unspaced(language: str) -> bool:
    """Whether sentences of a language follow each other without a space."""
    return language in _UNSPACED


def ordinal_dot(language: str) -> bool:
    """Whether a language writes ordinal numbers as digits and a full stop."""
    return language in _ORDINAL_DOT


def abbreviation(word: str, language: str, before_number: bool) -> bool:
    """Whether a full stop after ``word`` (given without it) more likely belongs to the word."""
    lowered = word.lower()
    if lowered in _BEFORE_NUMBERS:
        return before_number
    return lowered in _ABBREVIATIONS_ANYWHERE or lowered in _ABBREVIATIONS.get(language, ())
