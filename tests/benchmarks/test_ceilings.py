from pathlib import Path

import pytest
import torch

from benchmarks.ceilings import Ceilings, decoder_weights, decoding_floor_s, measure_ceilings
from inference_worker.engine.continuous.checkpoint import Checkpoint, load_checkpoint
from inference_worker.engine.protocol import Sentence

SMALL = Path(__file__).parents[2] / "models" / "small"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(SMALL)


def test_a_step_reads_the_decoder_and_the_projection(checkpoint: Checkpoint) -> None:
    # 2 layers of width 256 and inner width 768: self-attention 4, cross-attention 2 matrices with
    # biases, two inner matrices, three norms; the projection is the tied table.
    layer = 6 * (256 * 256 + 256) + 2 * 256 * 768 + 768 + 256 + 3 * 2 * 256
    assert decoder_weights(checkpoint) == 2 * layer + 8112 * 256


def test_the_floor_is_what_binds(checkpoint: Checkpoint) -> None:
    sentences, weights = [Sentence(0, (5,) * 10, 9)], decoder_weights(checkpoint)
    past_bytes = 20 * (10 + 10) * 2 * 2 * 256 * 4  # tokens × past × layers, keys and values

    def floor_s(width: int, beams: int, operations_per_s: float) -> float:
        ceilings = Ceilings(1e9, operations_per_s)
        return decoding_floor_s(
            checkpoint, sentences, [20], width=width, beams=beams, itemsize=4, ceilings=ceilings
        )

    assert floor_s(1, 1, 1e15) == pytest.approx((20 * weights * 4 + past_bytes) / 1e9)
    assert floor_s(4, 1, 1e15) == pytest.approx((5 * weights * 4 + past_bytes) / 1e9)
    assert floor_s(4, 5, 1e6) == pytest.approx(2 * weights * 5 * 20 / 1e6)


def test_ceilings_are_measured_where_we_are() -> None:
    ceilings = measure_ceilings("cpu", torch.float32)
    assert ceilings.bytes_per_s > 0
    assert ceilings.operations_per_s > 0
