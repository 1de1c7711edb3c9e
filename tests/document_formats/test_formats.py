"""Every format: what is translated, what stays byte for byte, and which mistakes are told."""

import csv
import io
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from document_formats import json_lines, plain, subrip, table
from document_formats.kinds import BY_NAME, recognised
from document_formats.spans import Malformed, assemble

LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])
WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), max_size=12)


def turned(kind: str, text: str, names: Sequence[str] = ()) -> str:
    """The document with every text in capitals between arrows."""
    found = BY_NAME[kind]
    spans = found.split(text, names)
    return assemble(text, spans, [f"→{span.text.upper()}" for span in spans], found.write)


def same(kind: str, text: str, names: Sequence[str] = ()) -> str:
    found = BY_NAME[kind]
    spans = found.split(text, names)
    return assemble(text, spans, [span.text for span in spans], found.write)


def rewritten(kind: str, text: str, names: Sequence[str] = ()) -> str:
    """As ``same``, but every text goes through the format's own spelling."""
    found = BY_NAME[kind]
    spans = found.split(text, names)
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], found.write(text[span.start : span.end], span, span.text)]
        at = span.end
    return "".join([*pieces, text[at:]])


# ── Plain text ───────────────────────────────────────────────────────────────────────────────────


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_plain_text_stays_byte_for_byte(text: str) -> None:
    assert same("text", text) == text
    assert [span.text for span in plain.split(text, ())] == [
        line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if any(char.isalpha() for char in line)
    ]  # fmt: skip


def test_plain_text_keeps_its_line_ends_and_numbers_its_lines() -> None:
    text = "one\r\n\r\n  two\n---\n12:30\rthree"
    assert turned("text", text) == "→ONE\r\n\r\n→  TWO\n---\n12:30\r→THREE"
    assert [span.line for span in plain.split(text, ())] == [1, 3, 6]
    span = plain.split("one", ())[0]
    assert plain.write("one", span, "eins\nzwei") == "eins zwei"


# ── SubRip ───────────────────────────────────────────────────────────────────────────────────────

SUBTITLES = (
    "1\r\n00:00:01,000 --> 00:00:02,500\r\nHello <i>there</i>.\r\nHow are you?\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000 X1:40 X2:600\r\n♪\r\n\r\n"
    "00:00:05.000 --> 00:00:06.000\r\n{\\an8}Goodbye\r\n\r\nsecond paragraph\r\n3\r\n"
    "00:00:07,000 --> 00:00:08,000\r\n1984\r\nwas a year"
)


def test_subtitles_keep_counters_and_timings() -> None:
    spans = subrip.split(SUBTITLES, ())
    assert [(span.line, span.text) for span in spans] == [
        (3, "Hello <i>there</i>."),
        (4, "How are you?"),
        (11, "Goodbye"),
        (13, "second paragraph"),
        (17, "was a year"),
    ]
    assert same("srt", SUBTITLES) == SUBTITLES
    assert rewritten("srt", SUBTITLES) == SUBTITLES
    assert "→SECOND PARAGRAPH\r\n3\r\n00:00:07,000" in turned("srt", SUBTITLES)


def test_a_translation_never_ends_its_cue() -> None:
    span = subrip.split(SUBTITLES, ())[0]
    assert subrip.write("", span, "a\n\n \nb\r\nc") == "a b c"


def test_markup_around_a_line_stays() -> None:
    text = "00:00:01,000 --> 00:00:02,000\n{\\an8}<i><b>one</b> two</i>\n<i>three\nfour</i>\n"
    assert turned("srt", text).partition("\n")[2] == (
        "{\\an8}<i><b>→ONE</B> TWO</i>\n<i>→THREE\n→FOUR</i>\n"
    )


@given(
    st.lists(st.tuples(st.booleans(), st.lists(WORDS, min_size=1, max_size=3)), max_size=5),
    LINE_ENDS,
    st.booleans(),
)
def test_any_subtitles_stay_byte_for_byte(
    cues: list[tuple[bool, list[str]]], end: str, closed: bool
) -> None:
    lines = ["00:00:00,000 --> 00:00:01,000", "x"]
    for number, (counted, texts) in enumerate(cues):
        lines += ["", *([str(number)] if counted else []), "00:00:01,000 --> 00:00:02,000", *texts]
    text = end.join(lines) + end * closed
    assert same("srt", text) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("no subtitles\n", 1),
        ("\n\n1\nHello\n", 3),
        ("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:03,00 -> x --> 00:04\nbye", 6),
    ],
)
def test_malformed_subtitles_name_the_line(text: str, line: int) -> None:
    with pytest.raises(Malformed) as caught:
        subrip.split(text, ())
    assert (caught.value.code, caught.value.line) == ("malformed_subrip", line)
    assert "Hello" not in caught.value.detail


def test_an_arrow_in_a_dialogue_is_no_timing() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nfrom A --> to B, chapter 5\n"
    assert [span.text for span in subrip.split(text, ())] == ["from A --> to B, chapter 5"]


# ── CSV ──────────────────────────────────────────────────────────────────────────────────────────

# The csv module itself leaves a lone \r unquoted when lines end with \n.
CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8)


@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_tables_read_as_the_csv_module_reads_them(
    body: list[list[str]], separator: str, end: str, quoting: int
) -> None:
    header = ["id", "title", "note"]
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([header, *body])
    text = file.getvalue()
    assert same("csv", text, ["title"]) == text
    found = [[cell[3] for cell in row] for row in table.rows(text, separator)]
    assert found == [header, *body]

    names = ["title", "note"]
    changed = turned("csv", text, names)
    read = list(csv.reader(io.StringIO(changed, newline=""), delimiter=separator))
    expected = [
        [cells[0], *(f"→{c.upper()}" if any(map(str.isalpha, c)) else c for c in cells[1:])]
        for cells in body
    ]
    assert read == [header, *expected]


def test_quoting_stays_as_it_was() -> None:
    text = 'id,title,note\n1,plain,"quoted, ""so"""\n2,"al""l",x\n'
    assert turned("csv", text, ["title", "note"]) == (
        'id,title,note\n1,→PLAIN,"→QUOTED, ""SO"""\n2,"→AL""L",→X\n'
    )
    assert rewritten("csv", text, ["title", "note"]) == text
    span = table.split(text, ["title"])[0]
    assert table.write("plain", span, "a, b") == '"a, b"'
    assert table.write("plain", span, 'say "b"') == '"say ""b"""'


def test_cells_are_numbered_by_line() -> None:
    text = 'title\n"one\ntwo"\n\nthree\n'
    assert [(span.line, span.text) for span in table.split(text, ["title"])] == [
        (2, "one\ntwo"),
        (5, "three"),
    ]


@pytest.mark.parametrize(
    ("text", "code", "line", "field"),
    [
        ("id,title\n1,x\n", "unknown_column", 1, "columns[0]"),
        ("", "malformed_csv", 1, "file"),
        ('id,name\n1,"never closed\n2,x\n', "malformed_csv", 2, "file"),
        ('id,name\n1,x\n2,"a"b\n', "malformed_csv", 3, "file"),
        ("id,name\n" + "," * 20_000, "too_many_columns", 2, "file"),
    ],
)
def test_malformed_tables(text: str, code: str, line: int, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        table.split(text, ["name"])
    error = caught.value
    assert (error.code, error.line, error.field) == (code, line, field)


# ── JSON Lines ───────────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.integers(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["title", "meta", "x"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.lists(st.dictionaries(st.sampled_from(["title", "meta", "x"]), JSON), max_size=4),
    st.booleans(),
    LINE_ENDS,
    st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", "  :  ")]),
)
def test_json_lines_stay_byte_for_byte(
    values: list[dict[str, object]], ascii_only: bool, end: str, separators: tuple[str, str]
) -> None:
    first = {"title": "here", "meta": {"title": "there"}}
    lines = [
        json.dumps(value, ensure_ascii=ascii_only, separators=separators)
        for value in [first, *values]
    ]
    text = end.join(lines) + end
    assert same("jsonl", text, ["title", "meta.title"]) == text
    changed = turned("jsonl", text, ["title", "meta.title"])
    read = [json.loads(line) for line in changed.split(end) if line]
    assert read == [_changed(value) for value in [first, *values]]


def _changed(value: dict[str, object]) -> dict[str, object]:
    def strings(inner: object, deep: bool) -> object:
        if isinstance(inner, str):
            return f"→{inner.upper()}" if any(map(str.isalpha, inner)) else inner
        if isinstance(inner, list):
            return [strings(element, deep) for element in inner]
        return inner

    def titles(inner: object) -> object:
        if isinstance(inner, list):
            return [titles(element) for element in inner]
        if isinstance(inner, dict):
            return {k: strings(v, True) if k == "title" else v for k, v in inner.items()}
        return inner

    return {
        key: strings(inner, True) if key == "title" else titles(inner) if key == "meta" else inner
        for key, inner in value.items()
    }


def test_numbers_spacing_keys_and_escapes_stay() -> None:
    text = '{ "n":1.50e+3 ,"big":' + "9" * 6_000 + ',"t" : "caf\\u00e9","u":"\\/é"}\n\n'
    assert same("jsonl", text, ["t", "u"]) == text
    assert turned("jsonl", text, ["t", "u"]) == text.replace(
        '"caf\\u00e9"', '"\\u2192CAF\\u00c9"'
    ).replace('"\\/é"', '"→/É"')


def test_lists_dotted_keys_and_repeated_keys() -> None:
    text = '{"a.b":"one","a":{"b":["two",{"c":"no"},3]},"a":{"b":"three"}}'
    assert [span.text for span in json_lines.split(text, ["a.b"])] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ('{"t":"x"}\n{"t":"y"\n', "malformed_json", 2),
        ('{"t":"x"}\n\n["t"]\n', "malformed_json", 3),
        ('{"t":"x","n":NaN}', "malformed_json", 1),
        ('{"t":"x"} {"t":"y"}', "malformed_json", 1),
        ('{"t":' + "[" * 50_000 + "]" * 50_000 + "}", "too_deep", 1),
        ('{"t":"' + "x" * 1_000_000 + '"}', "line_too_long", 1),
        ('{"u":"x"}', "unknown_field", None),
    ],
)
def test_malformed_json_lines(text: str, code: str, line: int | None) -> None:
    with pytest.raises(Malformed) as caught:
        json_lines.split(text, ["t"])
    assert (caught.value.code, caught.value.line) == (code, line)


# ── All ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("filename", "media_type", "kind"),
    [
        ("notes.txt", "", "text"),
        ("Movie.EN.SRT", "application/octet-stream", "srt"),
        ("table.tsv", "", "csv"),
        ("data.ndjson", "", "jsonl"),
        ("", "text/csv", "csv"),
        ("README", "text/plain", "text"),
        ("letter.docx", "text/plain", None),
        ("", "", None),
    ],
)
def test_formats_are_recognised(filename: str, media_type: str, kind: str | None) -> None:
    found = recognised(filename, media_type)
    assert (found and found.name) == kind


def test_too_many_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("document_formats.spans.MAX_TEXTS", 3)
    with pytest.raises(Malformed, match="more than 3 texts"):
        plain.split("a\nb\nc\nd\n", ())
