from typing import Any

import pytest

from inference_worker.choice import Choice, Machine, choose, this_machine
from inference_worker.settings import DeviceError, WorkerSettings

ALL = frozenset({"torch", "ctranslate2", "generate"})


def chosen(machine: Machine, **settings: Any) -> Choice:
    return choose(WorkerSettings(**settings), machine)


def shape(choice: Choice) -> tuple[str, str, str]:
    return choice.engine, choice.device, choice.compute_type


@pytest.mark.parametrize(
    ("engines", "gpu", "expected"),
    [
        (ALL, False, ("ctranslate2", "cpu", "int8")),
        ({"ctranslate2"}, False, ("ctranslate2", "cpu", "int8")),
        ({"torch", "generate"}, False, ("torch", "cpu", "float32")),
        (ALL, True, ("generate", "cuda", "bfloat16")),
        ({"ctranslate2"}, True, ("ctranslate2", "cuda", "float16")),
    ],
)
def test_auto_takes_what_is_fastest_there(
    engines: set[str], gpu: bool, expected: tuple[str, str, str]
) -> None:
    choice = chosen(Machine(frozenset(engines), gpu, gpu))
    assert shape(choice) == expected
    assert "installed" in choice.reason


def test_what_is_asked_for_is_taken() -> None:
    machine = Machine(ALL, gpu=True, gpu_bfloat16=False)
    assert shape(chosen(machine)) == ("generate", "cuda", "float16")
    asked = chosen(machine, engine="torch", device="cpu", compute_type="bfloat16")
    assert shape(asked) == ("torch", "cpu", "bfloat16")
    assert asked.reason == "asked for"
    on_gpu = chosen(Machine(ALL, gpu=True, gpu_bfloat16=True), engine="torch")
    assert shape(on_gpu) == ("torch", "cuda", "bfloat16")


@pytest.mark.parametrize(
    ("settings", "engines", "gpu", "message"),
    [
        ({"device": "cuda"}, ALL, False, "use --device cpu"),
        ({"engine": "torch"}, {"ctranslate2"}, False, r"pip install 'dragoman\[worker\]'"),
        ({"engine": "ctranslate2"}, {"torch"}, False, r"pip install 'dragoman\[cpu\]'"),
        ({"engine": "torch", "compute_type": "int8"}, ALL, True, "float16 on cuda"),
        ({"engine": "torch", "compute_type": "float16"}, ALL, False, "float32, bfloat16, int8"),
        ({"engine": "generate", "compute_type": "int8"}, ALL, False, "generate engine has"),
        ({"compute_type": "bfloat16"}, ALL, True, "use float16"),
        ({}, set(), False, "no engine is installed"),
    ],
)
def test_what_is_not_there_is_refused_with_the_remedy(
    settings: dict[str, Any], engines: set[str], gpu: bool, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        chosen(Machine(frozenset(engines), gpu, gpu_bfloat16=False), **settings)


def test_this_machine_has_the_engines_that_are_tested() -> None:
    assert this_machine().engines == ALL
