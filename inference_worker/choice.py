"""Which engine, device and number format ``auto`` means on a machine, and whether what was asked
for exists there. Imports no tensor library before it knows that one is wanted."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from inference_worker.settings import DeviceError, WorkerSettings

FLOATS = ("float32", "bfloat16", "float16")
COMPUTE_TYPES = {
    ("torch", "cpu"): ("float32", "bfloat16", "int8"),
    ("torch", "cuda"): FLOATS,
    ("ctranslate2", "cpu"): (*FLOATS, "int8"),
    ("ctranslate2", "cuda"): (*FLOATS, "int8"),
    ("generate", "cpu"): FLOATS,
    ("generate", "cuda"): FLOATS,
}
PACKAGES = {
    "torch": ("torch", "safetensors"),
    "ctranslate2": ("ctranslate2",),
    "generate": ("torch", "transformers"),
}
EXTRAS = {"torch": "worker", "ctranslate2": "cpu", "generate": "worker"}


@dataclass(frozen=True)
class Machine:
    """What can be used here."""

    engines: frozenset[str]  # whose packages are installed
    gpu: bool
    gpu_bfloat16: bool


@dataclass(frozen=True)
class Choice:
    """What a worker runs on, and why."""

    engine: str
    device: str
    compute_type: str
    reason: str


def this_machine() -> Machine:
    """Looks at the installed packages and, through one of them, for a GPU."""
    engines = frozenset(
        engine for engine, names in PACKAGES.items() if all(find_spec(name) for name in names)
    )
    if "ctranslate2" in engines and not import_module("ctranslate2").get_cuda_device_count():
        return Machine(engines, gpu=False, gpu_bfloat16=False)
    if "torch" not in engines:
        return Machine(engines, gpu="ctranslate2" in engines, gpu_bfloat16=False)
    cuda = import_module("torch").cuda
    gpu = bool(cuda.is_available())
    halves = gpu and bool(cuda.is_bf16_supported(including_emulation=False))
    return Machine(engines, gpu=gpu, gpu_bfloat16=halves)


def choose(settings: WorkerSettings, machine: Machine) -> Choice:
    """Resolves every ``auto``. Raises DeviceError, with the remedy, for what is not there."""
    device = _device(settings.device, machine)
    engine, reason = _engine(settings.engine, device, machine)
    compute_type = _compute_type(settings.compute_type, engine, device, machine)
    return Choice(engine, device, compute_type, reason)


def _device(asked: str, machine: Machine) -> str:
    if asked == "cuda" and not machine.gpu:
        raise DeviceError("--device cuda: no GPU can be used here; use --device cpu")
    return ("cuda" if machine.gpu else "cpu") if asked == "auto" else asked


def _engine(asked: str, device: str, machine: Machine) -> tuple[str, str]:
    if asked != "auto":
        if asked not in machine.engines:
            extra = EXTRAS[asked]
            raise DeviceError(f"--engine {asked} is not installed: pip install 'dragoman[{extra}]'")
        return asked, "asked for"
    # On CPUs the order of benchmarks/engine.py. On a GPU nobody has measured the torch engine yet:
    # whoever asks for it gets it.
    order = ("ctranslate2", "torch", "generate") if device == "cpu" else ("generate", "ctranslate2")
    for engine in order:
        if engine in machine.engines:
            return engine, f"the fastest one installed for the {device.upper()}"
    raise DeviceError("no engine is installed: pip install 'dragoman[cpu]' or 'dragoman[worker]'")


def _compute_type(asked: str, engine: str, device: str, machine: Machine) -> str:
    if asked != "auto":
        if asked not in COMPUTE_TYPES[engine, device]:
            known = ", ".join(COMPUTE_TYPES[engine, device])
            raise DeviceError(
                f"--compute-type {asked}: the {engine} engine has {known} on {device}"
            )
        halves = device == "cpu" or machine.gpu_bfloat16
        if asked == "bfloat16" and engine != "ctranslate2" and not halves:
            raise DeviceError("--compute-type bfloat16: this GPU has none; use float16")
        return asked
    if device == "cuda":
        return "bfloat16" if engine != "ctranslate2" and machine.gpu_bfloat16 else "float16"
    return "int8" if engine == "ctranslate2" else "float32"
