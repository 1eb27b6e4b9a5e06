"""Groups of commands that are listed from a table and imported only when they are used."""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

# name -> (module and attribute, help in one line)
Table = Mapping[str, tuple[str, str]]


class LazyGroup(click.Group):
    """A group whose help reads only its table, so that help stays fast."""

    def __init__(self, *args: Any, table: Table, aliases: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        self._aliases = aliases

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command's module."""
        name = self._aliases.get(cmd_name, cmd_name)
        if name not in self.table:
            return None
        module, attribute = self.table[name][0].split(":")
        return getattr(import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that was called; one that is mistyped is refused with those it resembles."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            close = get_close_matches(name, [*self.table, *self._aliases])
            meant = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"No such command {name!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in self.table.items()])
