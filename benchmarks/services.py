"""Services that can serve the bundled model: ours, and what one would choose instead. How each is
installed, started and asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import argos, load, report
from benchmarks.requests import SOURCE, TARGET, translation
from benchmarks.servers import HOST, NotStarted
from benchmarks.workload import SMALL
from inference_worker.settings import SLOTS

SCRIPTS = Path(__file__).with_name("peers")
OURS = "dragoman"
TORCH = "torch==2.13.0"
BEAMS, BATCH_WAIT_S = 5, 0.01
BATCH = SLOTS  # as many as our worker computes at once
INSTALL_S = 1_800.0

Ask = Callable[[str], load.Request]


@dataclass(frozen=True)
class Given:
    """What all are told."""

    threads: int
    patience_s: float
    cache: Path


@dataclass(frozen=True)
class Peer:
    """Something that translates over HTTP. ``engine`` is what it computes with."""

    name: str
    title: str
    engine: str
    environment: str  # its virtual environment, "" for ours
    packages: tuple[str, ...]
    command: Callable[[Given, int], Sequence[str]]
    environ: Callable[[Given], dict[str, str]]
    ask: Callable[[Given], Ask]
    prepare: Callable[[Given], None]
    settings: str


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────


def ask_dragoman(given: Given) -> Ask:
    """With the caller's patience as deadline."""
    header = f"X-Deadline-Ms: {given.patience_s * 1000:.0f}"
    return lambda text: translation([text], header)


def text_of(body: bytes) -> str:
    """The translation in a right answer of any of them."""
    document = json.loads(body)
    if "result" in document:
        document = document["result"][0]
    return str(document.get("text") or document["translatedText"])


def ask_simply(field: str, answer: str) -> Callable[[Given], Ask]:
    """``/translate`` with the text in one field and the translation in another."""

    def reject(status: int, body: bytes) -> str:
        if status != 200:
            return f"status {status}"
        return "" if json.loads(body).get(answer) else "no text"

    def asking(given: Given) -> Ask:
        return lambda text: load.Request(
            load.message("POST", "/translate", {field: text, "source": SOURCE, "target": TARGET}),
            reject,
        )

    return asking


# ── Peers ────────────────────────────────────────────────────────────────────────────────────────


def nothing(given: Given) -> None:
    """There is nothing to prepare."""


def text_model(given: Given) -> None:
    argos.write_model(given.cache / "model", given.cache / "built")


def packages(given: Given) -> None:
    """Argos packages for both directions (with fewer than two LibreTranslate asks the network), and
    an empty spaCy pipeline, to which Argos adds its rules for sentences."""
    folder = given.cache / "packages"
    for source, target in ((SOURCE, TARGET), (TARGET, SOURCE)):
        argos.write_package(folder, given.cache / "built", source, target)
        code = "import spacy, sys; spacy.blank('en').to_disk(sys.argv[1])"
        place = folder / f"{source}_{target}" / "spacy"
        python = given.cache / "libretranslate" / "bin" / "python"
        subprocess.run([python, "-c", code, place], check=True, capture_output=True)
    # Argos looks for a pipeline of its own here, and would ask the network for it.
    marker = given.cache / "argos" / "cache" / "argos-translate" / "spacy" / "senter" / "model"
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def serving_script(environment: str, name: str, *extra: str) -> Callable[[Given, int], list[str]]:
    """One of the scripts in ``benchmarks/peers``."""

    def command(given: Given, port: int) -> list[str]:
        model = ["--ctranslate2", str(given.cache / "model")] if "ctranslate2" in extra else []
        return [
            str(given.cache / environment / "bin" / "python"),
            str(SCRIPTS / f"{name}.py"),
            *("--port", str(port), "--checkpoint", str(SMALL), "--beams", str(BEAMS)),
            *("--threads", str(given.threads)),
            *("--batch", str(BATCH), "--batch-wait-s", str(BATCH_WAIT_S), *model),
        ]

    return command


def script_environ(given: Given) -> dict[str, str]:
    root = str(report.ROOT)
    return {
        "PYTHONPATH": os.pathsep.join([root, str(SCRIPTS)]),
        "OMP_NUM_THREADS": str(given.threads),
        "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def dragoman_command(given: Given, port: int) -> list[str]:
    return [sys.executable, "-m", "dragoman", "up", "--port", str(port), "--workers", "1"]


def dragoman_environ(given: Given) -> dict[str, str]:
    return {
        "DRAGOMAN_THREADS": str(given.threads),
        "DRAGOMAN_BEAMS": str(BEAMS),
        "DRAGOMAN_MEMORY": "false",
    }


def libretranslate_command(given: Given, port: int) -> list[str]:
    program = given.cache / "libretranslate" / "bin" / "libretranslate"
    flags = ["--disable-web-ui", "--disable-files-translation", "--load-only", f"{SOURCE},{TARGET}"]
    return [str(program), "--host", HOST, "--port", str(port), *flags]


def libretranslate_environ(given: Given) -> dict[str, str]:
    home = given.cache / "argos"
    return {
        "ARGOS_PACKAGES_DIR": str(given.cache / "packages"),
        "ARGOS_INTER_THREADS": "1",
        "ARGOS_INTRA_THREADS": str(given.threads),
        "ARGOS_BEAM_SIZE": str(BEAMS),
        "ARGOS_CHUNK_TYPE": "SPACY",
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "OMP_NUM_THREADS": str(given.threads),
    }


GENERATE, CTRANSLATE2 = "transformers", "CTranslate2"
GENERATING = (TORCH, "transformers==5.23.0", "sentencepiece>=0.2,<0.3")
FASTAPI = (*GENERATING, "ctranslate2>=4.8,<5", "fastapi>=0.115,<1", "uvicorn[standard]>=0.30,<1")
LITSERVE = (*GENERATING, "ctranslate2>=4.8,<5", "litserve>=0.2.19,<0.3")
RAY = (*GENERATING, "ray[serve]>=2.50,<3")
LIBRETRANSLATE = (TORCH, "libretranslate>=1.9,<2", "spacy>=3.8,<4")
simply = ask_simply("text", "text")

PEERS = (
    Peer(
        OURS,
        "**Dragoman**",
        "auto",
        "",
        (),
        dragoman_command,
        dragoman_environ,
        ask_dragoman,
        nothing,
        "`dragoman up`, one worker, memory off",
    ),
    Peer(
        "fastapi-generate",
        "FastAPI + `generate`",
        GENERATE,
        "fastapi",
        FASTAPI,
        serving_script("fastapi", "fastapi_server"),
        script_environ,
        simply,
        nothing,
        "one request at a time in `generate`, others wait in the thread pool of 40",
    ),
    Peer(
        "litserve-generate",
        "LitServe, batched",
        GENERATE,
        "litserve",
        LITSERVE,
        serving_script("litserve", "litserve_server"),
        script_environ,
        simply,
        nothing,
        f"batches of {BATCH} after {1000 * BATCH_WAIT_S:g} ms",
    ),
    Peer(
        "ray-generate",
        "Ray Serve, `@serve.batch`",
        GENERATE,
        "ray",
        RAY,
        serving_script("ray", "ray_server"),
        script_environ,
        simply,
        nothing,
        f"batches of {BATCH} after {1000 * BATCH_WAIT_S:g} ms, {2 * BATCH} ongoing, 200 queued",
    ),
    Peer(
        "libretranslate",
        "LibreTranslate",
        CTRANSLATE2,
        "libretranslate",
        LIBRETRANSLATE,
        libretranslate_command,
        libretranslate_environ,
        ask_simply("q", "translatedText"),
        packages,
        "int8, waitress with its 4 threads; Argos has a length penalty of 0.2 built in, so that"
        " some texts are shorter, and ends each with the mark that its source ends with",
    ),
    Peer(
        "fastapi-ctranslate2",
        "FastAPI + CTranslate2",
        CTRANSLATE2,
        "fastapi",
        FASTAPI,
        serving_script("fastapi", "fastapi_server", "ctranslate2"),
        script_environ,
        simply,
        text_model,
        "int8, one call a request from the thread pool of 40, CTranslate2's own queue",
    ),
    Peer(
        "litserve-ctranslate2",
        "LitServe + CTranslate2, batched",
        CTRANSLATE2,
        "litserve",
        LITSERVE,
        serving_script("litserve", "litserve_server", "ctranslate2"),
        script_environ,
        simply,
        text_model,
        f"int8, batches of {BATCH} after {1000 * BATCH_WAIT_S:g} ms",
    ),
)


def install(peer: Peer, cache: Path) -> None:
    """Makes the peer's environment unless it is there. Raises NotStarted with what pip said."""
    if not peer.environment:
        return
    folder = cache / peer.environment
    stamp, wanted = folder / "installed.txt", "\n".join(peer.packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"{peer.name}: installing into {folder}; this takes minutes", file=sys.stderr)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    # PyTorch first and alone: whatever comes later must not bring another build of it.
    steps = [[*pip, "-q", TORCH], [*pip, "-q", *peer.packages]]
    if not folder.exists():
        steps.insert(0, [sys.executable, "-m", "venv", str(folder)])
    for step in steps:
        try:
            subprocess.run(step, capture_output=True, text=True, check=True, timeout=INSTALL_S)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise NotStarted(f"cannot be installed: {last_line(said)}") from error
    stamp.write_text(wanted)


def last_line(said: str) -> str:
    return (said.strip().splitlines() or ["no message"])[-1][:200]
