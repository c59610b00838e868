"""Commands that installed distributions bring: entry points of the group `rlalgo.commands`, each a name and a function.

The function is an ordinary typer command. Its module is loaded when that command or the list of all is asked for, so
it imports little at its top.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup

from rlutils.outcome import complain, reported

GROUP = "rlalgo.commands"
OURS = dict.fromkeys(("import-hf", "export-hf", "push", "pull"), "rlalgo-hf")
"""Commands that live in other distributions of this project -> which to install."""


class Commands(TyperGroup):
    """The commands of this package, then those of others."""

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *sorted({point.name for point in metadata.entry_points(group=GROUP)} - {*own})]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if own := super().get_command(ctx, cmd_name):
            return own
        for point in metadata.entry_points(group=GROUP, name=cmd_name):
            try:
                return command(cmd_name, point.load())
            except Exception as error:  # noqa: BLE001 (one distribution's fault stops no other command)
                complain(f"command '{cmd_name}' ({point.value}) is left out: {type(error).__name__}: {error}")
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if (ours := OURS.get(args[0])) and not metadata.entry_points(group=GROUP, name=args[0]):
            ctx.fail(f"'{args[0]}' comes with {ours}: pip install {ours} (./plugins/{ours} in a checkout)")
        return super().resolve_command(ctx, args)


def command(name: str, function: Callable[..., None]) -> Any:
    """A function as a command whose errors are told as those of this package are."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(reported(function))
    return typer.main.get_command(alone)
