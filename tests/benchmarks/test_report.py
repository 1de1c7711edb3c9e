"""Tables that are Markdown and can be read as they are."""

from benchmarks import report


def test_numbers_stand_to_the_right() -> None:
    text = report.table(("side", "share"), [["ours", "100%"], ["theirs, long", "9%"]])
    assert text.splitlines() == [
        "| side         | share |",
        "|--------------|------:|",
        "| ours         |  100% |",
        "| theirs, long |    9% |",
    ]


def test_three_digits() -> None:
    assert [report.shown(value) for value in (0.01234, 1.2345, 123.45)] == [
        "0.012",
        "1.23",
        "123.5",
    ]


def test_the_machine_is_one_line() -> None:
    line = report.machine()
    assert "load average" in line
    assert "\n" not in line
