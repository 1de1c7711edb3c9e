from pathlib import Path

import pytest
import torch

from benchmarks.exact import drive
from inference_worker.engine.continuous.checkpoint import load_checkpoint
from inference_worker.engine.continuous.engine import ContinuousEngine
from inference_worker.engine.continuous.linear import PlainLinear, make_linear, usable
from inference_worker.engine.continuous.placement import ComputeType, place
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.protocol import Sentence
from inference_worker.tokens import Vocabulary

TOLERANCE = {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.03}


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("rows", [1, 5, 80])
def test_approximates_the_plain_product(compute_type: ComputeType, rows: int) -> None:
    if not usable(compute_type):
        pytest.skip(f"this machine has no {compute_type}")
    torch.manual_seed(rows)
    weight, bias, inputs = torch.randn(96, 64), torch.randn(96), torch.randn(rows, 64)
    wanted = PlainLinear(weight, bias)(inputs)

    found = make_linear(weight, bias, place(compute_type))(inputs)

    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max() / wanted.abs().max()) < TOLERANCE[compute_type]


def test_an_int8_row_does_not_depend_on_its_neighbours() -> None:
    if not usable("int8"):
        pytest.skip("this machine has no int8")
    torch.manual_seed(1)
    linear = make_linear(torch.randn(96, 64), torch.randn(96), place("int8"))
    rows = torch.randn(8, 64)
    rows[3] *= 1000

    together = linear(rows)

    for index in range(8):
        assert together[index].equal(linear(rows[index : index + 1])[0])


def test_a_row_of_zeros_yields_the_bias() -> None:
    bias = torch.randn(96)
    for compute_type in ("float32", "int8"):
        if usable(compute_type):
            found = make_linear(torch.randn(96, 64), bias, place(compute_type))(torch.zeros(1, 64))
            torch.testing.assert_close(found[0], bias)


@pytest.mark.parametrize("compute_type", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("beams", [1, 3])
def test_an_engine_of_every_compute_type_translates(
    compute_type: ComputeType, beams: int, small: Path
) -> None:
    """Rounded weights may choose other words, but on a trained model seldom very different ones."""
    if not usable(compute_type):
        pytest.skip(f"this machine has no {compute_type}")
    vocabulary = Vocabulary(small)
    source = vocabulary.encode("He goes to school every day.", "en").ids
    engine = ContinuousEngine(
        load_checkpoint(small), Rules(beams=beams), width=3, compute_type=compute_type
    )
    found = drive(engine, [[Sentence(1, source, vocabulary.language("ja"))]])
    assert "学校" in vocabulary.decode(found[1][0].tokens)
