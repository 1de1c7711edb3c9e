"""``dragoman demo``: the sample sentence and a small file through the running stack."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.resources import files

from dragoman import stack
from dragoman.client import Client
from dragoman.supervisor import Supervisor

SENTENCE = "Life is like a box of chocolates."
SOURCE, TARGET = "en", "ja"


def sample_file() -> list[str]:
    """The lines of the file that ships with the package; one is blank."""
    return files("dragoman").joinpath("demo.en.txt").read_text(encoding="utf-8").splitlines()


def translate_samples(url: str, say: Callable[[str], None]) -> None:
    """Raises what the client raises."""
    with Client(url) as client:
        say(f"{SENTENCE}\n  {client.translate(SENTENCE, SOURCE, TARGET)}")
        lines = sample_file()
        say(f"\ndemo.en.txt ({len(lines)} lines, as one job):")
        for line, result in zip(lines, client.translate(lines, SOURCE, TARGET), strict=True):
            say(f"{line}\n  {result}" if line else "")


def run(
    supervisor: Supervisor, interrupts: stack.Interrupts, url: str, say: Callable[[str], None]
) -> bool:
    """Runs the stack until the samples are translated; False when it was interrupted before.

    Raises StackFailed, and what the client raises.
    """
    work: list[Future[None]] = []
    with ThreadPoolExecutor(1) as executor:
        stack.run(
            supervisor,
            interrupts,
            when_ready=lambda: work.append(executor.submit(translate_samples, url, say)),
            until=lambda: bool(work) and work[0].done(),
        )
    if not work or interrupts.count:
        return False
    work[0].result()
    return True
