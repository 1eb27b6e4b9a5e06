"""`apr corpus`: the table of its commands."""

import click

from apr.cli.groups import LazyGroup, Table

VERBS: Table = {
    "scan": (
        "apr.cli.corpus.scan:command",
        "Tell what there is: documents, languages, licences, copies, oddities.",
    ),
    "split": (
        "apr.cli.corpus.split:command",
        "Set documents aside by groups, so that no text is on both sides.",
    ),
    "dedup": (
        "apr.cli.corpus.dedup:command",
        "Find documents that repeat one another, or held-out ones.",
    ),
    "decontaminate": (
        "apr.cli.corpus.decontaminate:command",
        "Find evaluation items and held-out text in documents.",
    ),
}


@click.command("corpus", cls=LazyGroup, table=VERBS, aliases={})
def command() -> None:
    """Look at a corpus, split it, and certify that its two parts do not overlap.

    \b
    apr corpus scan repos
    apr corpus split repos -o data --val-fraction 0.01 --group repo
    apr corpus dedup data/train --held-out data/held-out -o data/duplicates.jsonl
    apr corpus decontaminate data/train --held-out data/held-out --against HumanEval.jsonl.gz \\
        --remove data/duplicates.jsonl -o data/contaminated.jsonl
    """  # noqa: D301  click reads the escaped character
