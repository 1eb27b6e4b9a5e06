"""A command line as it was typed, for the next command to repeat."""

from collections.abc import Collection

import click

from apr.cli import output


def typed_again(ctx: click.Context, *, without: Collection[str] = ()) -> str:
    """The command that is running, less some of its options."""
    left_out = {
        spelling: parameter
        for parameter in ctx.command.params
        if parameter.name in without
        for spelling in parameter.opts
    }
    words: list[str] = []
    typed = iter(ctx.find_root().obj or ())
    for word in typed:
        parameter = left_out.get(word.partition("=")[0])
        if not isinstance(parameter, click.Option):
            words.append(word)
        elif not parameter.is_flag and "=" not in word:
            next(typed)
    return output.command_line("apr", *words)
