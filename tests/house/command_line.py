"""The command line, read from the program: the frozen list of options, and docs/commands.md.

    python -m tests.house.command_line

writes both again after a wanted change; the tests compare.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from apr.cli.main import ALIASES, VERBS, cli

FROZEN = Path(__file__).with_name("command_line.txt")
DOCUMENT = Path(__file__).parents[2] / "docs" / "commands.md"

INTRODUCTION = """\
# Commands

Every verb of `apr` with every option, as `--help` prints it. This page is generated from the
program; a test compares the two.

stdout carries the result, stderr progress and refusals. `--json` prints exactly one object, in
every ending. A refusal says what was found, what was expected and what to do:
[errors.md](errors.md) has a section for each.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | a bug in apr: please report it |
| 2 | the command line, or the request, makes no sense |
| 3 | a path is not there |
| 4 | a file is not what it claims to be |
| 5 | a check said no |
| 7 | reading or writing failed |
| 9 | something that is not installed is needed |
| 10 | the network failed; the same command may succeed later |
| 130 | interrupted; the last checkpoint is good |
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with the words that call it, in the order of help."""
    context = click.Context(cli, info_name="apr")
    for verb in VERBS:
        command = cli.get_command(context, verb)
        assert command is not None, verb
        yield from _leaves(f"apr {verb}", command)


def _leaves(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path)
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None, name
        yield from _leaves(f"{path} {name}", child)


def help_text(path: str, command: click.Command) -> str:
    """What `PATH --help` prints on a terminal of 88 columns."""
    context = command.make_context(
        path, [], resilient_parsing=True, help_option_names=["-h", "--help"], terminal_width=88
    )
    return command.get_help(context)


def frozen() -> str:
    """One line for each argument and option: its names, its type, its default."""
    lines = [f"{alias} = {verb}" for alias, verb in ALIASES.items()]
    for path, command in commands():
        lines += ["", path, *(f"  {_describe(parameter)}" for parameter in command.params)]
    return "\n".join(lines) + "\n"


def _describe(parameter: click.Parameter) -> str:
    names = " ".join([*parameter.opts, *parameter.secondary_opts])
    if isinstance(parameter, click.Argument):
        names = parameter.human_readable_name
    kind = parameter.type
    words = [names]
    if isinstance(kind, click.Choice):
        words.append("{" + ",".join(map(str, kind.choices)) + "}")
    elif not getattr(parameter, "is_flag", False):
        words.append(_describe_type(kind))
    if parameter.multiple or parameter.nargs == -1:
        words.append("...")
    if parameter.required:
        words.append("required")
    default = parameter.default
    if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        words.append(f"= {default}")
    return " ".join(words)


def _describe_type(kind: click.ParamType) -> str:
    if isinstance(kind, click.IntRange | click.FloatRange):
        return f"{kind.name} {kind.min}..{kind.max}".replace("None", "")
    return kind.name


def document() -> str:
    """The whole of docs/commands.md."""
    parts = [INTRODUCTION]
    for alias, verb in ALIASES.items():
        parts.append(f"`apr {alias}` is another name of `apr {verb}`.\n")
    for path, command in commands():
        lines = [line.rstrip() for line in help_text(path, command).splitlines()]
        parts.append("\n".join([f"## {path}", "", "```text", *lines, "```", ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    FROZEN.write_text(frozen(), encoding="utf-8")
    DOCUMENT.write_text(document(), encoding="utf-8")
