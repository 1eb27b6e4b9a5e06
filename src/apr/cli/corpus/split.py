"""`apr corpus split`: a corpus becomes a training and a held-out part."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.corpus.options import CORPUS_PATH, reading_options
from apr.cli.values import LOCAL_PATH, require_used
from apr.units import format_bytes, format_count

if TYPE_CHECKING:
    from apr.corpus.certificate import DocumentSet
    from apr.corpus.splitting.split import Split


@click.command("split")
@click.argument("paths", nargs=-1, required=True, type=CORPUS_PATH)
@click.option(
    "-o",
    "--output",
    "directory",
    required=True,
    type=LOCAL_PATH,
    help="Directory.",
)
@click.option(
    "--val-fraction",
    "fraction",
    default=0.01,
    show_default=True,
    help="Share of the groups that is held out.",
)
@click.option(
    "--group",
    type=click.Choice(["repo", "package", "file"]),
    default="repo",
    show_default=True,
    help="What stays on one side: first level below a path, directory, or single text.",
)
@click.option("--group-field", help="Field of a row that names its group [repo or package].")
@click.option("--seed", default=0, show_default=True, help="Another draw of the held-out groups.")
@reading_options
@click.option("--overwrite", "--force", is_flag=True, help="Replace what apr wrote there.")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context, paths: tuple[str | Path, ...], directory: Path, **options: Any
) -> output.Result:
    """Split PATHS into documents to train on and documents to validate on.

    \b
    apr corpus split repos -o data --val-fraction 0.01 --group repo
    apr corpus split a.jsonl.zst -o data --group repo --group-field repo_name

    The side of a document is a function of its group and of --seed alone: adding data never moves
    one. Training text that is also held out is left out and counted. Both parts are packed JSON
    lines; certificate.json ties them together.
    """  # noqa: D301  click reads the escaped character
    from apr.corpus.splitting.split import split_corpus
    from apr.corpus.splitting.split_rule import SplitRule

    if options["group"] == "file":
        require_used(ctx, "group_field", unless="with --group file: each text stands alone")
    rule = SplitRule(options.pop("group"), options.pop("fraction"), options.pop("seed"))
    split = split_corpus(paths, output=directory, rule=rule, progress=output.progress(), **options)
    train, held_out = directory / "train", directory / "held-out"
    return output.Result(
        data={"output": str(directory)} | split.as_dict(),
        text=_text(split, directory),
        next_commands=(
            output.command_line(
                "apr", "corpus", "dedup", train, "--held-out", held_out,
                "--certificate", directory / "certificate.json",
                "-o", directory / "duplicates.jsonl",
            ),
        ),
    )  # fmt: skip


def _text(split: "Split", directory: Path) -> str:
    rule, account = split.rule, split.account
    groups = ", ".join(split.held_out_groups[:5])
    more = ", ..." if len(split.held_out_groups) > 5 else ""
    return "\n".join(
        [
            f"split: {directory}, by {rule.group}, seed {rule.seed}",
            f"  train     {_set_text(split.train)}",
            f"  held-out  {_set_text(split.held_out)}{f' ({groups}{more})' if groups else ''}",
            f"  left out: {account.describe()}",
            f"  certificate {split.certificate_sha256}",
        ]
    )


def _set_text(documents: "DocumentSet") -> str:
    return (
        f"{format_count(documents.num_documents)} documents, {format_bytes(documents.text_bytes)}"
    )
