"""Options that several commands of `apr corpus` share."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.free_name import free_name
from apr.cli.values import LOCAL_PATH, Location

CORPUS_PATH = Location("path")

_CONTENT_FIELD = "content"
_TOKENIZER = "tok"


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
            default=_CONTENT_FIELD,
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
    train: Sequence[str | Path],
    *,
    removals: Sequence[Path],
    certificate: Path | None,
    options: Mapping[str, Any],
) -> tuple[str, ...]:
    """The commands that encode what is left of the training documents, as they were read.

    Without a tokenizer directory at hand, the first one trains it.
    """
    corpus = [word for path in train for word in ("--corpus", path)]
    remove = [word for path in removals for word in ("--remove", path)]
    certified = ["--certificate", certificate] if certificate else []
    train_tokenizer = output.command_line(
        "apr", "tokenize", "train", *corpus, *source_words(options), "-o", _TOKENIZER
    )
    encode = output.command_line(
        "apr", "tokenize", "encode-corpus", *corpus, *reading_words(options), *remove, *certified,
        "--tokenizer", _TOKENIZER, "-o", free_name(Path("shards/train")),
    )  # fmt: skip
    return (encode,) if Path(_TOKENIZER).exists() else (train_tokenizer, encode)


def source_words(options: Mapping[str, Any]) -> list[object]:
    """The source options that were given, for the next command to type."""
    words: list[object] = [word for glob in options["exclude"] for word in ("--exclude", glob)]
    if options["content_field"] != _CONTENT_FIELD:
        words += ["--content-field", options["content_field"]]
    return words


def reading_words(options: Mapping[str, Any]) -> list[object]:
    """The reading options that were given, for the next command to type."""
    allowed = options["max_quarantined"]
    return source_words(options) + (["--max-quarantined", allowed] if allowed else [])


def place_text(where: dict[str, Any]) -> str:
    """A source with its row, out of a removal."""
    row = where.get("row")
    return f"{where['source']}" + ("" if row is None else f":{row}")
