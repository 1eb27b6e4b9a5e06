"""Options that several commands of `apr tokenize` share."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from apr.cli.values import LOCAL_PATH, Location

PATH = LOCAL_PATH


LOCATION = Location("location")


def corpus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads a corpus and writes a directory."""
    for option in (
        click.option("--overwrite", "--force", is_flag=True, help="Replace what apr wrote there."),
        click.option("-o", "--output", "directory", required=True, type=PATH, help="Directory."),
        click.option(
            "--exclude",
            multiple=True,
            help="Leave out files below a directory whose path fits, such as '*.min.js'.",
        ),
        click.option(
            "--content-field",
            default="content",
            show_default=True,
            help="Field of a row that holds the text.",
        ),
        click.option(
            "--corpus",
            required=True,
            multiple=True,
            type=LOCATION,
            help="A .jsonl (also .gz, .zst) or .parquet file, a text file, a directory of any of "
            "them, or a URL; repeatable.",
        ),
    ):
        command = option(command)
    return command


def repeat(option: str, values: Sequence[object]) -> list[object]:
    """The words of a repeatable option, for the next command to type."""
    return [word for value in values for word in (option, value)]
