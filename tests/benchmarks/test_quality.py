"""What is measured of self-checks: the list of failures, the tables, a run of a few sentences."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.quality import Answer, Task, Translator
from benchmarks.workload import SMALL, Text
from inference_worker.quality.review import Reading
from inference_worker.tokens import Vocabulary


def test_every_failure_has_a_translation_that_passes() -> None:
    tasks = quality.read_failures()
    assert {"capitals", "emoji", "placeholder", "address", "number", "loop"} <= {
        task.kind for task in tasks
    }
    failed = [
        task
        for task in tasks
        if quality.examine(task.text.source, task.text.target, task.languages)
    ]
    assert not failed


def test_a_row_counts_what_became_of_sentences() -> None:
    pytest.importorskip("sacrebleu", reason="pip install '.[training]'")
    task = Task("number", Text("en", "de", "In 1987.", "Im Jahr 1987."))
    wrong = Reading("Im Jahr 7.", -1.0, Counter(lost_number=1))
    right = Reading("Im Jahr 1987.", -1.0, Counter(), mended=True)
    rows = quality.table(
        [Answer(task, wrong, right, True), Answer(task, right, right, False)], "all"
    )
    assert [cell.strip() for cell in rows[-1].split("|")[1:8]] == [
        *("**all**", "2", "1", "1", "1", "1", "1")
    ]


def test_references_are_counted_by_direction() -> None:
    rows = quality.references(
        [Text("en", "de", "In 1987.", "1978!"), Text("en", "de", "Yes.", "Ja.")]
    )
    assert rows[2:] == [
        "| de>en | 2 | 50.000% | 50.000% |",
        "| en>de | 2 | 50.000% | 50.000% |",
        "| **all** | 4 | 50.000% | 50.000% |",
    ]


@pytest.mark.slow
def test_a_few_sentences_are_caught_and_mended(tmp_path: Path) -> None:
    translator = Translator(tmp_path, "int8", Vocabulary(SMALL))
    tasks = [task for task in quality.read_failures() if task.kind == "emoji"][:4]
    answers, costs = quality.translate(translator, tasks)
    assert all(answer.retried and answer.kept.clean for answer in answers)
    assert min(costs.first_s, costs.again_s, costs.checks_s) > 0
