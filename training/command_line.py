"""Commands as tables, and the argparse parser of them."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

#: Flags or name and settings of `add_argument`; a list of options are those that exclude one another.
Option = tuple[tuple[str, ...], dict[str, Any]]
#: Takes the options by name; gives the exit status, or None for 0.
Action = Callable[..., int | None]


class Command(NamedTuple):
    """A command: its action and options, or the commands below it."""

    name: str
    help: str
    action: Action | list[Command]
    options: tuple[Option | list[Option], ...] = ()


def option(*flags: str, **settings: Any) -> Option:
    """What `add_argument` takes."""
    return flags, settings


def command(help: str, *options: Option | list[Option]) -> Callable[[Action], Command]:
    """Make a command of an action, by its name."""
    return lambda action: Command(action.__name__.replace("_", "-"), help, action, options)


def add(parser: ArgumentParser, commands: Iterable[Command], metavar: str = "COMMAND") -> None:
    """Give a parser commands; the action is then `run` of the parsed options."""
    parsers = parser.add_subparsers(required=True, metavar=metavar)
    for name, help, action, options in commands:
        below = parsers.add_parser(name, help=help)
        if isinstance(action, list):
            add(below, action, "WHAT")
            continue
        below.set_defaults(run=action)
        for entry in options:
            alone = not isinstance(entry, list)
            place = below if alone else below.add_mutually_exclusive_group()
            for flags, settings in [entry] if alone else entry:
                place.add_argument(*flags, **settings)


#: Options of several commands.
OUT = option("--out", required=True, help="folder, made where it is missing")
DEVICE = option("--device", choices=("cuda", "cpu"), help="default: the GPU where there is one")
