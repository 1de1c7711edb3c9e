"""Lines in, lines out: order, endings and blank lines survive; long lines are cut and joined."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman import Client, lines
from tests.dragoman.fake_service import FakeService


@pytest.fixture
def client(service: FakeService) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


def translate(client: Client, path: Path) -> tuple[str, lines.LineTranslator, list[int]]:
    output, advances = io.StringIO(), list[int]()
    translator = lines.LineTranslator(client, "en", "ja", lambda: output, advances.append)
    translator.run(lines.read([str(path)]))
    return output.getvalue(), translator, advances


@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo\n",
        "no newline at the end",
        "windows\r\nlines\r\n\r\nand a blank one\r\n",
        "\n\n\n",
        "  indented\n\t\n   \nlast",
        "a form\x0cfeed, a next\x85line and a \u2028separator are no line ends\n",
        "",
    ],
)
def test_layout_survives(client: Client, tmp_path: Path, text: str) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(text.encode())
    assert translate(client, path)[0] == text.upper()


def test_blank_lines_are_not_sent(client: Client, service: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("one\n\n  \ntwo\n")
    translate(client, path)
    (seen,) = service.calls("POST", "/jobs")
    assert [record["text"] for record in seen.body["payload"]["records"]] == ["one", "two"]


def test_a_long_file_keeps_its_order_and_counts_every_byte(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"line {number}\n" for number in range(3_001)))
    written, _, advances = translate(client, path)
    assert written == path.read_text().upper()
    assert sum(advances) == path.stat().st_size
    assert len(service.calls("POST", "/jobs")) == 16


def test_a_failed_line_is_empty_and_named(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("good\n\npoison\ngood again\n")
    written, translator, _ = translate(client, path)
    assert written == "GOOD\n\n\nGOOD AGAIN\n"
    assert translator.failed == [lines.FailedLine(3, "poison", "it cannot be done")]


def test_a_line_above_the_servers_limit_is_cut_and_joined(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("A sentence of some words. " * 1_000 + "\nshort\n")
    assert translate(client, path)[0] == path.read_text().upper()
    (seen,) = service.calls("POST", "/jobs")
    assert max(len(record["text"]) for record in seen.body["payload"]["records"]) <= 9_000


@given(st.text(alphabet="ab .。!あ", max_size=60))
def test_pieces_lose_nothing(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE_CHARS", 7)
        parts = lines.pieces(text)
    assert "".join(parts) == text
    assert all(len(part) <= 7 for part in parts)


def test_jobs_are_cancelled_when_it_is_interrupted(
    client: Client, service: FakeService, tmp_path: Path
) -> None:
    service.held.clear()
    path = tmp_path / "in.txt"
    path.write_text("line\n" * 900)

    def interrupted() -> Iterator[lines.Line]:
        yield from lines.read([str(path)])
        raise KeyboardInterrupt

    translator = lines.LineTranslator(client, "en", "ja", io.StringIO, lambda count: None)
    with pytest.raises(KeyboardInterrupt):
        translator.run(interrupted())
    assert {job["state"] for job in service.jobs.values()} == {"cancelled"}
    assert len(service.jobs) == 4


def test_files_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(lines.Unusable, match="is not UTF-8 text"):
        list(lines.read([str(path)]))


def test_what_is_a_file_and_what_is_text(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("from the file\n")
    assert lines.is_input("-")
    assert lines.is_input(str(path))
    assert not lines.is_input("Where is the station?")
    assert not lines.is_input("x" * 10_000)
    assert not lines.is_input("with a \0 in it")
    read = [line.text for line in lines.read([str(path), "and a text"])]
    assert read == ["from the file", "and a text"]
    assert lines.size_bytes([str(path), "four"]) == 18
    assert lines.size_bytes(["-"]) is None
