"""`apr bench`: the table of its commands."""

import click

from apr.cli.groups import LazyGroup, Table

VERBS: Table = {
    "train": ("apr.cli.bench.train:command", "Train on made-up ids: tokens/s, MFU, time by part."),
    "tokenize": ("apr.cli.bench.tokenize:command", "Encode text on one core: tokens/s."),
    "checkpoint": (
        "apr.cli.bench.checkpoint:command",
        "Save while training: seconds stalled, seconds written.",
    ),
    "load": ("apr.cli.bench.load:command", "Read a model from its file: seconds, GB/s."),
}


@click.command("bench", cls=LazyGroup, table=VERBS, aliases={})
def command() -> None:
    """Measure what this machine does, beside others in the same minutes; write nothing.

    \b
    apr bench train
    apr bench train --against plain,hf-trainer --rounds 3
    """  # noqa: D301  click reads the escaped character
