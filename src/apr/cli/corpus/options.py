"""Options that several commands of `apr corpus` share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click


class CorpusPath(click.ParamType):
    """A path, or a URL that stays text."""

    name = "path"

    def convert(
        self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | Path:
        """A URL has two slashes in a row, which a path would lose."""
        return value if isinstance(value, str) and "://" in value else Path(value)


CORPUS_PATH = CorpusPath()


def reading_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how documents are read."""
    for option in (
        click.option(
            "--max-quarantined",
            default=0,
            show_default=True,
            type=click.IntRange(min=0),
            help="Rows that may be no documents; they are left out and counted.",
        ),
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


def left_out_text(drops: dict[str, int], num_quarantined: int) -> str:
    """What was left out, in one line."""
    ranked = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    reasons = [f"{count} {reason}" for reason, count in ranked]
    reasons += [f"{num_quarantined} quarantined"] if num_quarantined else []
    return ", ".join(reasons) or "nothing"


def options_as_words(**options: Any) -> list[object]:
    """Reading options that are not the default, for the next command to type."""
    words: list[object] = []
    if options.get("content_field", "content") != "content":
        words += ["--content-field", options["content_field"]]
    patterns: Sequence[str] = options.get("exclude", ())
    return [*words, *(word for pattern in patterns for word in ("--exclude", pattern))]
