"""`apr corpus`: the table of its commands."""

import click

from apr.cli.groups import LazyGroup, Table

VERBS: Table = {
    "split": (
        "apr.cli.corpus.split:command",
        "Set documents aside by groups, so that no text is on both sides.",
    ),
    "dedup": (
        "apr.cli.corpus.dedup:command",
        "Find documents that repeat one another, or held-out ones.",
    ),
}


@click.command("corpus", cls=LazyGroup, table=VERBS, aliases={})
def command() -> None:
    """Look at a corpus, split it, and certify that its two parts do not overlap.

    \b
    apr corpus split repos -o data --val-fraction 0.01 --group repo
    """  # noqa: D301  click reads the escaped character
