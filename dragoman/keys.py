"""``dragoman keys``: the operator's side of API keys and of what their tenants may use. It works on
Redis itself, so that the first key needs no key."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer

from broker import options
from broker.settings import BrokerSettings
from broker.tenants import KeySettings, Quota, Tenants, read_secret
from dragoman.console import broker_settings, complain, readable_errors, say

app = typer.Typer(
    no_args_is_help=True,
    help="API keys, their tenants, and what these may use. Every setting of the broker"
    " (docs/configuration.md) is taken from the environment.",
)

NO_LIMIT = "0 is no limit."


def setting(owner: type[Any], name: str) -> Any:
    """A flag of a tier's settings with its environment variable and its help."""
    field = owner.__dataclass_fields__[name]
    return typer.Option(
        options.flag(name),
        envvar=options.variable(name),
        help=field.metadata["help"],
        show_default=field.default != "",
    )


RedisUrl = Annotated[str, setting(BrokerSettings, "redis_url")]
Tenant = Annotated[str, typer.Argument(help="1 to 64 letters, digits, _ and -.")]


@contextmanager
def opened(redis_url: str) -> Iterator[Tenants]:
    settings = broker_settings(["--redis-url", redis_url], "dragoman keys")
    try:
        with readable_errors(), Tenants(settings) as tenants:
            yield tenants
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@app.command()
def create(
    tenant: Tenant,
    note: Annotated[str, typer.Option("--note", help="Shown by list: whose key it is.")] = "",
    secret_file: Annotated[str, setting(KeySettings, "key_secret_file")] = "",
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Make a key for a tenant and print it, this once: it is not stored."""
    if not secret_file:
        raise typer.BadParameter("name the file that the API has too, with --key-secret-file")
    with opened(redis_url) as tenants:
        key = tenants.create(read_secret(secret_file), tenant, note)
    complain(f"A key for {tenant}. Keep it: it cannot be shown again.")
    say(key)


@app.command("list")
def list_keys(
    tenant: Annotated[str, typer.Option("--tenant", help="Only this one's.")] = "",
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Name the keys there are: id, tenant, when it was made, note."""
    with opened(redis_url) as tenants:
        for identity, entry in tenants.keys().items():
            if tenant in ("", entry.tenant):
                made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.created_s))
                say(f"{identity}  {entry.tenant}  {made}  {entry.note}".rstrip())


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, as list shows it.")],
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Take a key back; within seconds no API process lets it in."""
    with opened(redis_url) as tenants:
        if not tenants.revoke(key):
            complain("dragoman: there is no key with this id")
            raise typer.Exit(1)
    complain("Revoked.")


@app.command()
def quota(
    tenant: Tenant,
    requests_per_s: Annotated[
        float | None,
        typer.Option("--requests-per-s", help=f"Calls of the API a second. {NO_LIMIT}"),
    ] = None,
    chars_per_minute: Annotated[
        int | None,
        typer.Option("--chars-per-minute", help=f"Characters handed in a minute. {NO_LIMIT}"),
    ] = None,
    outstanding_chars: Annotated[
        int | None,
        typer.Option("--outstanding-chars", help=f"Characters queued or running. {NO_LIMIT}"),
    ] = None,
    weight: Annotated[
        float | None, typer.Option("--weight", help="Share of the fair queue; 1 is usual.")
    ] = None,
    redis_url: RedisUrl = BrokerSettings.redis_url,
) -> None:
    """Change what a tenant may use, and show it."""
    given = {
        "requests_per_s": requests_per_s,
        "chars_per_minute": chars_per_minute,
        "outstanding_chars": outstanding_chars,
        "weight": weight,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with opened(redis_url) as tenants:
        now = tenants.quota(tenant)
        if changes:
            now = Quota(**(msgspec.structs.asdict(now) | changes))
            tenants.set_quota(tenant, now)
    for name, value in msgspec.structs.asdict(now).items():
        say(f"{options.flag(name)[2:]}: {value:,g}" if value else f"{options.flag(name)[2:]}: none")
