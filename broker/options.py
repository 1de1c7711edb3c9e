"""Command-line flags and environment variables of a tier, both derived from its settings dataclass.

A field declared with ``option`` becomes ``--compute-type`` and ``DRAGOMAN_COMPUTE_TYPE``; the flag
wins over the variable, the variable over the default. Only ``__main__`` modules call ``parse``.
"""

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

PREFIX = "DRAGOMAN_"

Settings = TypeVar("Settings")


def option(default: Any, help: str, *, choices: Sequence[str] | None = None) -> Any:
    """A settings field with its default, its one-line help, and the values it may take."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def variable(name: str) -> str:
    """The environment variable of a field."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def convert(text: str, kind: type, choices: Sequence[str] | None) -> Any:
    """Text to a field's type. Raises ValueError with the remedy in its message."""
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"must be true or false, not {text!r}")
        return text.lower() == "true"
    if choices and text not in choices:
        raise ValueError(f"must be one of {', '.join(choices)}, not {text!r}")
    try:
        value = kind(text)
        if kind is float and not math.isfinite(value):  # float takes "nan" and "inf"
            raise ValueError
        return value
    except ValueError:
        noun = {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
        raise ValueError(f"must be {noun}, not {text!r}") from None


def parse(
    owners: Sequence[type[Any]],
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    program: str,
    description: str,
) -> list[Any]:
    """One instance of each settings class in ``owners``, from flags, environment and defaults.

    Exits with status 2 and one readable line when a value does not fit, as argparse does; a
    ValueError from a class's ``__post_init__`` is reported the same way.
    """
    parser = argparse.ArgumentParser(program, description=description, allow_abbrev=False)
    fields: dict[str, dataclasses.Field[Any]] = {}
    kinds: dict[str, type] = {}
    for owner in owners:
        kinds |= get_type_hints(owner)
        for field in dataclasses.fields(owner):
            if "help" not in field.metadata or field.name in fields:
                continue
            fields[field.name] = field
            default = "" if field.default in ("", None) else f" Default: {shown(field.default)}."
            alone: dict[str, Any] = {}
            if kinds[field.name] is bool:  # the bare flag says true
                alone = {"nargs": "?", "const": "true"}
            parser.add_argument(
                flag(field.name),
                **alone,
                metavar="|".join(field.metadata["choices"] or ()) or kinds[field.name].__name__,
                help=f"{field.metadata['help']} [{variable(field.name)}]{default}".replace(
                    "%", "%%"
                ),
            )
    given = vars(parser.parse_args(argv))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        origin, text = flag(name), given[name]
        if text is None and environ.get(variable(name), "") != "":
            origin, text = variable(name), environ[variable(name)]
        if text is None:
            continue
        try:
            values[name] = convert(text, kinds[name], field.metadata["choices"])
        except ValueError as error:
            parser.error(f"{origin} {error}")
    made = []
    for owner in owners:
        names = {field.name for field in dataclasses.fields(owner)}
        try:
            made.append(owner(**{name: values[name] for name in names & values.keys()}))
        except ValueError as error:
            parser.error(str(error))
    return made


def shown(value: Any) -> str:
    """A default as a person would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
