import json
from pathlib import Path

import pytest

from inference_worker.engine.continuous.rules import BOUND_SLACK_TOKENS, Rules, shipped_rules


def test_without_a_bound_every_sentence_may_run_to_max_length() -> None:
    assert Rules(max_length=200).limit(3) == 200


def test_a_bound_follows_the_source_length() -> None:
    rules = Rules(max_length=200, length_bound=2.5)
    assert rules.limit(5) == 13 + BOUND_SLACK_TOKENS
    assert rules.limit(150) == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"beams": 0},
        {"hypotheses": 6},
        {"hypotheses": 0},
        {"early_stopping": "sometimes"},
        {"max_length": 2},
        {"length_bound": -1.0},
        {"no_repeat_ngram": -1},
    ],
)
def test_refuses(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Rules(**wrong)  # type: ignore[arg-type]


def test_reads_what_the_checkpoint_ships(small: Path) -> None:
    assert shipped_rules(small) == Rules()
    assert shipped_rules(small, beams=2).beams == 2


def test_a_missing_file_means_transformers_defaults(tmp_path: Path) -> None:
    assert shipped_rules(tmp_path) == Rules(beams=1, early_stopping=False)
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 3}))
    assert shipped_rules(tmp_path) == Rules(beams=3, early_stopping=False)
