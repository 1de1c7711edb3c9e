from dataclasses import dataclass

import pytest

from broker.options import option, parse


@dataclass(frozen=True)
class Example:
    compute_type: str = option("auto", "Arithmetic.", choices=("auto", "int8"))
    threads: int = option(0, "Threads.")
    loud: bool = option(False, "Loudness.")
    pace_s: float = option(0.5, "100 % of pace.")

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError("--threads must not be negative")


def run(argv: list[str], **environ: str) -> Example:
    return parse([Example], argv, environ, program="example", description="An example.")[0]


def test_a_flag_wins_over_the_variable_and_the_variable_over_the_default() -> None:
    assert run([]) == Example("auto", 0, False, 0.5)
    assert run([], DRAGOMAN_COMPUTE_TYPE="int8", DRAGOMAN_LOUD="TRUE").loud is True
    assert run(["--compute-type", "auto"], DRAGOMAN_COMPUTE_TYPE="int8").compute_type == "auto"
    assert run([], DRAGOMAN_THREADS="").threads == 0


@pytest.mark.parametrize(
    ("argv", "environ", "message"),
    [
        (["--threads", "many"], {}, "--threads must be a whole number, not 'many'"),
        ([], {"DRAGOMAN_LOUD": "yes"}, "DRAGOMAN_LOUD must be true or false, not 'yes'"),
        (["--compute-type", "fp8"], {}, "--compute-type must be one of auto, int8, not 'fp8'"),
        (["--pace-s", "x"], {}, "--pace-s must be a number"),
        (["--pace-s", "nan"], {}, "--pace-s must be a number, not 'nan'"),
        ([], {"DRAGOMAN_PACE_S": "-inf"}, "DRAGOMAN_PACE_S must be a number, not '-inf'"),
        (["--threads", "-1"], {}, "--threads must not be negative"),
        (["--colour", "red"], {}, "unrecognized arguments: --colour"),
    ],
)
def test_a_value_that_does_not_fit_ends_with_a_line_that_names_it(
    argv: list[str], environ: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(argv, **environ)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_the_variable_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(["--help"])
    shown = capsys.readouterr().out
    assert "[DRAGOMAN_COMPUTE_TYPE]" in shown
    assert "Default: 0.5." in shown
    assert "100 % of pace" in shown
