"""Options that several commands of `apr tokenize` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def corpus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads a corpus and writes a directory."""
    for option in (
        click.option("--overwrite", "--force", is_flag=True, help="Replace what apr wrote there."),
        click.option("-o", "--output", "directory", required=True, type=PATH, help="Directory."),
        click.option(
            "--content-field", default="content", show_default=True, help="Text field in .jsonl."
        ),
        click.option(
            "--corpus",
            required=True,
            multiple=True,
            type=PATH,
            help="A .jsonl file, a text file, or a directory of either; repeatable.",
        ),
    ):
        command = option(command)
    return command


def repeat(option: str, values: tuple[Path, ...]) -> list[object]:
    """The words of a repeatable option, for the next command to type."""
    return [word for value in values for word in (option, value)]
