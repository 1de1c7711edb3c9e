"""``dragoman dead-letters``: an operator's view of the records that were given up. It asks Redis
itself, since no HTTP caller may see another's text."""

import asyncio
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from broker import options
from broker.dead_letters import DeadLetter, DeadLetters
from broker.producer import Producer
from broker.settings import BrokerSettings
from dragoman.console import broker_settings, readable_errors, say
from dragoman.errors import DragomanError

app = typer.Typer(
    no_args_is_help=True,
    help="Records that ended every worker they were given to. Texts only show when asked for.",
)
PIPE_WIDTH = 200  # columns of a table that no terminal shows

Ids = Annotated[list[str] | None, typer.Argument(help="Ids, as `list` shows them.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them instead.")]
RedisUrl = Annotated[
    str,
    typer.Option(
        "--redis-url",
        envvar=options.variable("redis_url"),
        help="The Redis that the tiers meet over.",
    ),
]
ShowText = Annotated[bool, typer.Option("--text", help="Show the source text as well.")]


class NoSuchLetter(DragomanError):
    """An id that no dead letter has."""


@contextmanager
def opened(redis_url: str) -> Iterator[tuple[BrokerSettings, DeadLetters]]:
    """The dead letters of a Redis; its other settings come from the environment. What goes wrong
    ends the command with a line that says so."""
    settings = broker_settings(["--redis-url", redis_url], "dragoman dead-letters")
    with readable_errors():
        letters = DeadLetters(settings)
        try:
            yield settings, letters
        finally:
            letters.close()


@app.command("list")
def show_list(redis_url: RedisUrl = BrokerSettings.redis_url) -> None:
    """Name them, oldest first."""
    table = Table("id", "died", "model", "tenant", "pair", "characters", "attempts", box=None)
    with opened(redis_url) as (_, letters):
        for letter in letters:
            record = letter.record
            table.add_row(
                letter.id,
                moment(letter.died_ms),
                letter.model,
                record.tenant,
                f"{record.source}-{record.target}",
                str(len(record.text)),
                str(attempts(letter)),
            )
    console = Console()
    if not table.row_count:
        console.print("There are no dead letters.")
        return
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


@app.command("show")
def show_one(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    text: ShowText = False,
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Tell everything about one, its text only with --text."""
    with opened(redis_url) as (_, letters):
        letter = found(letters, letter_id)
    for name, value in described(letter).items():
        say(f"{name:12} {value}")
    if text:
        say(f"\n{letter.record.text}")


@app.command("retry")
def retry(
    ids: Ids = None,
    everything: Everything = False,
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Translate them again, each as a new request that its tenant can read at /jobs/ID.

    The first request keeps the error it was answered with. A record that is still poison ends its
    workers again and comes back as a dead letter.
    """
    with opened(redis_url) as (settings, letters):
        asyncio.run(put_back(settings, letters, chosen(letters, ids, everything)))


async def put_back(
    settings: BrokerSettings, letters: DeadLetters, wanted: Iterable[DeadLetter]
) -> None:
    producer = Producer(settings, f"operator-{secrets.token_hex(4)}")
    try:
        await producer.prepare()
        for letter in wanted:
            request_id = await letters.retry(producer, letter)
            say(f"{letter.id} queued again as /jobs/{request_id}")
    finally:
        await producer.close()


@app.command("discard")
def discard(
    ids: Ids = None,
    everything: Everything = False,
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Remove them for good."""
    with opened(redis_url) as (_, letters):
        for letter in chosen(letters, ids, everything):
            letters.discard(letter.id)
            say(f"{letter.id} discarded")


def chosen(letters: DeadLetters, ids: list[str] | None, everything: bool) -> list[DeadLetter]:
    """Those that the command line names. Raises NoSuchLetter before anything is done."""
    if bool(ids) == everything:
        raise typer.BadParameter("name dead letters by their ids, or all of them with --all")
    if everything:
        return list(letters)
    return [found(letters, letter_id) for letter_id in ids or ()]


def found(letters: DeadLetters, letter_id: str) -> DeadLetter:
    letter = letters.get(letter_id)
    if letter is None:
        raise NoSuchLetter(
            f"there is no dead letter {letter_id!r:.60}; `dragoman dead-letters list` names them"
        )
    return letter


def described(letter: DeadLetter) -> dict[str, str]:
    """What is known of a letter, but for its text."""
    record, error, details = letter.record, letter.outcome.error, letter.outcome.details
    return {
        "id": letter.id,
        "died": moment(letter.died_ms),
        "accepted": moment(record.accepted_ms),
        "request": f"/jobs/{record.request}, record {record.index}",
        "tenant": record.tenant,
        "model": letter.model,
        "languages": f"{record.source} to {record.target}",
        "lane": record.lane,
        "characters": str(len(record.text)),
        "attempts": str(attempts(letter)),
        "given up by": details.worker if details else "",
        "error": f"{error.code}: {error.detail}" if error else "",
        "trace": record.traceparent,
    }


def attempts(letter: DeadLetter) -> int:
    """How many workers had it, the one that gave it up not counted."""
    details = letter.outcome.details
    return details.attempts - 1 if details else 0


def moment(milliseconds: int) -> str:
    date = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return date.strftime("%Y-%m-%d %H:%M:%S UTC")
