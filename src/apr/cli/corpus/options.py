"""Options that several commands of `apr corpus` share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.values import LOCAL_PATH, Location

CORPUS_PATH = Location("path")


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which documents are read."""
    for option in (
        click.option(
            "--exclude",
            multiple=True,
            metavar="GLOB",
            help="Leave out files or directories below the named ones; repeatable.",
        ),
        click.option(
            "--content-field",
            default="content",
            show_default=True,
            help="Text field of rows (.jsonl, .parquet).",
        ),
    ):
        command = option(command)
    return command


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how documents are read."""
    return source_options(
        click.option(
            "--max-quarantined",
            default=0,
            show_default=True,
            type=click.IntRange(min=0),
            help="Rows that may be no documents; they are left out and counted.",
        )(command)
    )


def verdict_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that compares training with held-out documents."""
    for option in (
        click.option("--overwrite", "--force", is_flag=True, help="Replace what apr wrote there."),
        click.option(
            "--certificate",
            type=LOCAL_PATH,
            help="An earlier certificate of these documents, whose other checks are carried on.",
        ),
        click.option(
            "-o",
            "--output",
            "directory",
            required=True,
            type=LOCAL_PATH,
            help="A .jsonl file, or a directory for removals.jsonl and certificate.json.",
        ),
        click.option(
            "--held-out", multiple=True, type=CORPUS_PATH, help="Held-out documents; repeatable."
        ),
    ):
        command = option(command)
    return command


def next_encode(
    train: Sequence[str | Path], *, removals: Sequence[Path], certificate: Path | None
) -> str:
    """The command that encodes what is left of the training documents."""
    words: list[object] = [word for path in train for word in ("--corpus", path)]
    words += [word for path in removals for word in ("--remove", path)]
    words += ["--certificate", certificate] if certificate else []
    return output.command_line(
        "apr", "tokenize", "encode-corpus", *words, "--tokenizer", "tok", "-o", "shards/train"
    )


def place_text(where: dict[str, Any]) -> str:
    """A source with its row, out of a removal."""
    row = where.get("row")
    return f"{where['source']}" + ("" if row is None else f":{row}")
