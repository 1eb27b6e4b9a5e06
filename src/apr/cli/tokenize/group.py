"""`apr tokenize`: the table of its commands."""

import click

from apr.cli.groups import LazyGroup, Table

VERBS: Table = {
    "train": ("apr.cli.tokenize.train:command", "Learn a byte-level BPE tokenizer from a corpus."),
    "import-hf": (
        "apr.cli.tokenize.import_hf:command",
        "Take over a Hugging Face tokenizer, with its ids as they are.",
    ),
    "encode-corpus": (
        "apr.cli.tokenize.encode_corpus:command",
        "Turn a corpus into shards of token ids.",
    ),
    "verify": (
        "apr.cli.tokenize.verify:command",
        "Prove that shards are what their manifest says.",
    ),
    "explain": (
        "apr.cli.tokenize.explain:command",
        "Say which file and line a token came from.",
    ),
    "show-batch": (
        "apr.cli.tokenize.show_batch:command",
        "Show the exact text of any step of a run.",
    ),
    "repair-manifest": (
        "apr.cli.tokenize.repair_manifest:command",
        "Make bare u32 shards readable, as far as they tell.",
    ),
    "diff": ("apr.cli.tokenize.diff:command", "Say which documents differ between shards."),
}


@click.command("tokenize", cls=LazyGroup, table=VERBS, aliases={})
def command() -> None:
    """Turn text into token ids, and learn how.

    \b
    apr tokenize train --corpus src --vocab-size 4096 -o tok
    apr tokenize encode-corpus --corpus src --tokenizer tok -o shards
    """  # noqa: D301  click reads the escaped character
