"""``dragoman memory``: an operator's way to make the translation memory forget. It works on Redis
itself: over HTTP nobody can see, or change, what is remembered."""

from typing import Annotated

import typer

from broker import options
from broker.memory import Memory
from broker.settings import BrokerSettings
from broker.tenants import DEFAULT_TENANT
from dragoman.console import broker_settings, readable_errors, say

app = typer.Typer(
    no_args_is_help=True, help="The translations that are remembered for a tenant, for a while."
)


@app.callback()
def root() -> None:
    """Keeps ``forget`` a word of its own, though it is the only one."""


@app.command()
def forget(
    tenant: Annotated[
        str, typer.Argument(help="Whose; without API keys there is only the default one.")
    ] = DEFAULT_TENANT,
    redis_url: Annotated[
        str,
        typer.Option(
            "--redis-url",
            envvar=options.variable("redis_url"),
            help="The Redis that the tiers meet over.",
        ),
    ] = BrokerSettings.redis_url,
) -> None:
    """Forget every sentence of a tenant. What is being translated now may still be remembered."""
    with readable_errors():
        memory = Memory(broker_settings(["--redis-url", redis_url], "dragoman memory"))
        try:
            forgotten = memory.forget(tenant)
        finally:
            memory.close()
    say(f"{forgotten} sentences of {tenant} are forgotten")
