"""`apr tokenize`: the table of its commands."""

import click

from apr.cli.groups import LazyGroup, Table

VERBS: Table = {
    "train": ("apr.cli.tokenize.train:command", "Learn a byte-level BPE tokenizer from a corpus."),
    "encode-corpus": (
        "apr.cli.tokenize.encode_corpus:command",
        "Turn a corpus into shards of token ids.",
    ),
}


@click.command("tokenize", cls=LazyGroup, table=VERBS, aliases={})
def command() -> None:
    """Turn text into token ids, and learn how.

    \b
    apr tokenize train --corpus src --vocab-size 4096 -o tok
    apr tokenize encode-corpus --corpus src --tokenizer tok -o shards
    """  # noqa: D301  click reads the escaped character
