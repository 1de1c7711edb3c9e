"""The ``dragoman`` command."""

import os
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from broker import functions, options, users
from dragoman import checkpoints, dead_letters, demo, keys, lines, memory, stack, top
from dragoman.client import DEFAULT_URL, Client
from dragoman.console import FAILED, broker_settings, complain, readable_errors, say
from dragoman.errors import ServerError
from dragoman.exchange import Retries
from dragoman.output import Output, progress_bar
from dragoman.settings import StackSettings
from dragoman.terminal import ctrl_c_is_ours

PARTLY_FAILED, INTERRUPTED = 3, 130
PATIENT = Retries(unreachable=10, overloaded=100)  # a file outlives a restart of the server

app = typer.Typer(
    name="dragoman",
    help="Translation as a service: an HTTP API and M2M100 workers that meet over Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(no_args_is_help=True, help="The checkpoints workers can serve.")
broker = typer.Typer(no_args_is_help=True, help="The Redis that the tiers meet over.")
app.add_typer(models, name="models")
app.add_typer(broker, name="broker")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(keys.app, name="keys")
app.add_typer(memory.app, name="memory")

API_KEY = typer.Option(
    "--key", envvar="DRAGOMAN_API_KEY", help="API key, where the server asks for one."
)
PASS_ON: dict[str, Any] = {
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
    "add_help_option": False,  # its own program prints it
}


def setting(name: str, *short: str) -> Any:
    """A flag of ``StackSettings`` with its environment variable and its help."""
    field = StackSettings.__dataclass_fields__[name]
    choices = field.metadata["choices"]
    return typer.Option(
        options.flag(name),
        *short,
        envvar=options.variable(name),
        help=field.metadata["help"],
        metavar="|".join(choices) if choices else None,
        show_default=field.default not in ("", False),
    )


def stack_settings(**values: Any) -> StackSettings:
    try:
        return StackSettings(**values)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def show_version(wanted: bool) -> None:
    if wanted:
        say(f"dragoman {version('dragoman')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


Host = Annotated[str, setting("host")]
Port = Annotated[int, setting("port")]
Workers = Annotated[int, setting("workers")]
DocumentWorkers = Annotated[int, setting("document_workers")]
ApiProcesses = Annotated[int, setting("api_processes")]
Model = Annotated[str, setting("model")]
RedisUrl = Annotated[str, setting("redis_url")]
DataDir = Annotated[str, setting("data_dir")]
Device = Annotated[str, setting("device")]
Nice = Annotated[int, setting("nice")]
Grace = Annotated[float, setting("grace_s")]
KeySecretFile = Annotated[str, setting("key_secret_file")]
Insecure = Annotated[bool, setting("insecure")]
Verbose = Annotated[bool, setting("verbose", "-v")]


@app.command()
def up(
    host: Host = StackSettings.host,
    port: Port = StackSettings.port,
    workers: Workers = StackSettings.workers,
    document_workers: DocumentWorkers = StackSettings.document_workers,
    api_processes: ApiProcesses = StackSettings.api_processes,
    model: Model = StackSettings.model,
    redis_url: RedisUrl = StackSettings.redis_url,
    data_dir: DataDir = StackSettings.data_dir,
    device: Device = StackSettings.device,
    nice: Nice = StackSettings.nice,
    grace_s: Grace = StackSettings.grace_s,
    key_secret_file: KeySecretFile = StackSettings.key_secret_file,
    insecure: Insecure = StackSettings.insecure,
    verbose: Verbose = StackSettings.verbose,
) -> None:
    """Run the whole service on this machine until Ctrl-C.

    Every other setting of the tiers (docs/configuration.md) is taken from the environment.
    """
    settings = stack_settings(
        host=host,
        port=port,
        workers=workers,
        document_workers=document_workers,
        api_processes=api_processes,
        model=model,
        redis_url=redis_url,
        data_dir=data_dir,
        device=device,
        nice=nice,
        grace_s=grace_s,
        key_secret_file=key_secret_file,
        insecure=insecure,
        verbose=verbose,
    )
    complain(stack.beginning(settings))
    with (
        ctrl_c_is_ours(),
        stack.Interrupts() as interrupts,
        readable_errors(),
        stack.assembled(settings, broker_settings([], "dragoman up"), complain) as supervisor,
    ):
        stack.run(supervisor, interrupts, when_ready=lambda: say(stack.welcome(settings)))


@app.command("demo")
def run_demo(
    model: Model = StackSettings.model,
    device: Device = StackSettings.device,
    verbose: Verbose = StackSettings.verbose,
) -> None:
    """Start the service on a free port, translate a sentence and a small file, and stop.

    The exit code is 0 when everything was translated.
    """
    port = stack.free_port(StackSettings.host)
    settings = stack_settings(
        port=port, document_workers=0, model=model, device=device, verbose=verbose
    )
    complain(stack.beginning(settings))
    with (
        ctrl_c_is_ours(),
        stack.Interrupts() as interrupts,
        readable_errors(),
        stack.assembled(
            settings, broker_settings([], "dragoman demo"), complain, operated=False
        ) as supervisor,
    ):
        if not demo.run(supervisor, interrupts, stack.url(settings), say):
            raise typer.Exit(INTERRUPTED)


@app.command()
def translate(
    source: Annotated[str, typer.Option("--from", help="Language of the text, e.g. en.")],
    target: Annotated[str, typer.Option("--to", help="Language to translate into, e.g. ja.")],
    text: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts, files, or - for standard input; the latter two are read line by line.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", help="File to write instead of standard output.")
    ] = "",
    url: Annotated[
        str, typer.Option("--url", envvar="DRAGOMAN_URL", help="Where the server is.")
    ] = DEFAULT_URL,
    key: Annotated[str, API_KEY] = "",
) -> None:
    """Translate texts or files with a running server.

    Lines keep their order and endings; blank lines stay. A line that fails becomes an empty one,
    is named on standard error, and makes the exit code 3.
    """
    arguments = text or ([] if sys.stdin.isatty() else ["-"])
    if not arguments:
        raise typer.BadParameter("give a text, a file, or - for standard input")
    try:
        with (
            readable_errors(),
            Output(output, arguments) as writer,
            Client(url, key=key, retries=PATIENT) as client,
        ):
            check_reachable(url, key)
            for argument in filter(lines.seems_a_file, arguments):
                complain(f"dragoman: there is no file {argument}; it is translated as text")
            if any(lines.is_input(argument) for argument in arguments):
                failed = translate_lines(client, source, target, arguments, writer)
            else:
                failed = translate_texts(client, source, target, arguments, writer)
    except KeyboardInterrupt:
        complain("dragoman: interrupted; what was not finished is cancelled")
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    if failed:
        raise typer.Exit(PARTLY_FAILED)


def check_reachable(url: str, key: str) -> None:
    """Says at once that nothing listens there; later the server may be away for a while."""
    retries = Retries(unreachable=0, overloaded=0)
    with Client(url, key=key, retries=retries) as client, suppress(ServerError):
        client.languages()


def translate_texts(
    client: Client, source: str, target: str, texts: list[str], output: Output
) -> bool:
    """Whether a text failed."""
    results = client.results(texts, source, target)
    stream = output.stream()
    for number, result in enumerate(results, 1):
        stream.write(f"{result.text or ''}\n")
        if result.error is not None:
            complain(f"text {number}: {result.error.detail} ({result.error.code})")
    return any(result.error is not None for result in results)


def translate_lines(
    client: Client, source: str, target: str, arguments: list[str], output: Output
) -> bool:
    """Whether a line failed."""
    with progress_bar(output) as progress:
        task = progress.add_task("", total=lines.size_bytes(arguments))
        translator = lines.LineTranslator(
            client, source, target, output.stream, lambda count: progress.advance(task, count)
        )
        translator.run(lines.read(arguments))
    for line in translator.failed:
        complain(f"line {line.number}: {line.detail} ({line.code})")
    return bool(translator.failed)


@app.command("top")
def show_top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, help="Seconds from one reading to the next.")
    ] = 2.0,
    url: Annotated[
        str, typer.Option("--url", envvar="DRAGOMAN_URL", help="Where the server is.")
    ] = DEFAULT_URL,
    key: Annotated[str, API_KEY] = "",
) -> None:
    """Show what a running server is doing: queue, workers, requests. Ctrl-C ends it.

    Where the output is no terminal, one frame is printed.
    """
    with readable_errors():
        top.run(url, interval, once, key)


@models.command("pull", **PASS_ON)
def pull(context: typer.Context) -> None:
    """Fetch a checkpoint, pin its revision and convert it once."""
    with readable_errors():
        raise typer.Exit(checkpoints.pull(context.args))


@models.command("list")
def list_models(
    cache_dir: Annotated[
        str,
        typer.Option(
            "--cache-dir", envvar="DRAGOMAN_CACHE_DIR", help="Where pulled checkpoints are kept."
        ),
    ] = checkpoints.CACHE_DIR,
) -> None:
    """Name the checkpoints on this machine."""
    for line in checkpoints.listing(Path(cache_dir).expanduser()):
        say(line)


@broker.command("init", **PASS_ON)
def init(context: typer.Context) -> None:
    """Check a Redis and load the functions into every primary."""
    description = "Loads Dragoman's functions into every primary of a Redis, and checks it."
    settings = broker_settings(context.args, "dragoman broker init", description)
    with readable_errors():
        for line in functions.init(settings):
            say(line)


@broker.command("users")
def write_users(
    folder: Annotated[Path, typer.Argument(help="Where they are written; made if need be.")],
) -> None:
    """Make a password for the Redis user of each tier, and the ACL file that goes with them.

    Passwords that are there already stay.
    """
    with readable_errors():
        for path in users.write(folder):
            say(str(path))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
