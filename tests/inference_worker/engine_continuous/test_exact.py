"""The engine's answers are transformers' answers, whatever arrives when and next to what.

``python -m benchmarks.exact`` is the same comparison over thousands of cases.
"""

import random
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.exact import RULES, drive, make_sentences, reference, run_again, verdict
from inference_worker.engine.continuous.rules import Rules
from inference_worker.engine.protocol import Hypothesis

CASES = 10  # sentences per model and rules
PAIRS = [("small", Rules(beams=5)), ("small", Rules(beams=1))]
PAIRS += [(("deep", "flat", "wide", "long")[i % 4], rules) for i, rules in enumerate(RULES)]

_answers: dict[tuple[str, Rules], dict[int, tuple[Hypothesis, ...]]] = {}


@pytest.mark.parametrize(("name", "rules"), PAIRS)
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a mismatch says enough without being shrunk
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_equals_transformers(
    name: str, rules: Rules, checkpoint: Callable, model: Callable, make_engine, data: st.DataObject
) -> None:
    vocabulary = checkpoint(name).architecture.vocabulary
    sentences = make_sentences(vocabulary, CASES, random.Random(name))
    if (name, rules) not in _answers:
        _answers[name, rules] = reference(model(name), rules, sentences)
    order = data.draw(st.permutations(sentences), label="order")
    cuts = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=8), label="gulps")
    gulps = []
    for size in cuts:
        gulps.append(order[:size])
        order = order[size:]
    dropped = data.draw(st.dictionaries(st.integers(1, 30), st.integers(0, CASES - 1), max_size=2))
    width = data.draw(st.sampled_from((1, 2, 3, 5, 16)), label="width")

    capture = data.draw(st.sampled_from((None, run_again)), label="replayed in fixed shapes")

    engine = make_engine(name, rules, width, capture=capture)
    found = drive(engine, [*gulps, order], {step: [key] for step, key in dropped.items()})

    assert {sentence.key for sentence in sentences} - set(found) <= set(dropped.values())
    assert engine.free == engine.slots
    for key, hypotheses in found.items():
        outcome = verdict(
            model(name), rules, sentences[key], hypotheses, _answers[name, rules][key]
        )
        if outcome == "excused":
            print("excused: transformers differs between two batch widths", name, rules, key)
        assert outcome != "wrong", (key, hypotheses)
