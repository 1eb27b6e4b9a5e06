"""`apr tokenize repair-manifest`: bare shards of the Rust tool made readable."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.free_name import free_name
from apr.cli.tokenize.options import PATH
from apr.units import format_count

if TYPE_CHECKING:
    from apr.shards.repairing.repair import Repair


@click.command("repair-manifest")
@click.option(
    "-o", "--output", "directory", required=True, type=PATH, help="Directory of the shards."
)
@click.option(
    "--tokenizer",
    "tokenizer_path",
    required=True,
    type=PATH,
    help="The tokenizer that is believed to have made them.",
)
@click.option("--eos-token", help="The document separator, over what an old manifest says.")
@click.option(
    "--eos-policy",
    type=click.Choice(["after", "between", "none"]),
    help="Where separators stand; by default as the ids show. none: one document per shard.",
)
@click.option("--into", type=PATH, help="Write to a new directory, which links to the shards.")
@click.option("--overwrite", "--force", is_flag=True, help="Replace a manifest of apr's own.")
@output.standard_options
def command(directory: Path, into: Path | None, **options: Any) -> output.Result:
    """Write indexes and a manifest for bare shards of u32 ids, as the Rust apr writes them.

    \b
    apr tokenize repair-manifest --output shards --tokenizer tok
    apr tokenize repair-manifest --output shards --tokenizer tok --into readable

    The shards are not changed. Every id is read and documents are cut at their separators. What
    the files cannot tell is listed in the manifest as unknown, and the gates before training
    answer UNKNOWN to it: which tokenizer made the ids above all.
    """  # noqa: D301  click reads the escaped character
    from apr.shards.repairing.repair import repair_manifest

    repair = repair_manifest(directory, into=into, progress=output.progress(), **options)
    return output.Result(
        data=repair.as_dict(),
        text=_text(repair),
        next_commands=_next(repair, options["tokenizer_path"]),
    )


def _next(repair: "Repair", tokenizer_path: Path) -> tuple[str, ...]:
    verify = ("apr", "tokenize", "verify", repair.directory, "--tokenizer", tokenizer_path)
    pretrain = (
        "apr", "pretrain", "--dataset", repair.directory, "--tokenizer", tokenizer_path,
        "--arch", "tiny", "--run-dir", free_name(Path("runs/first")), "--dry-run",
        "--waive", "preflight.tokenizer-fingerprint=REASON",
        "--waive", "preflight.data-degenerate=REASON",
    )  # fmt: skip
    return output.command_line(*verify), output.command_line(*pretrain)


def _text(repair: "Repair") -> str:
    manifest, repaired = repair.manifest, repair.repaired
    documents = "documents" if manifest.eos_policy != "none" else "shards taken for documents"
    separator = "" if manifest.eos_token is None else f" {manifest.eos_token}"
    lines = [
        f"shards: {repair.directory}",
        f"  {format_count(manifest.total_tokens)} tokens, {manifest.total_documents} {documents}, "
        f"{manifest.eos_token_count} separators{separator} ({manifest.eos_policy})",
        f"  {repaired.num_same_ids} of {repaired.num_compared} documents, decoded and encoded "
        "again, have the ids that are there",
        f"  unknown: {', '.join(repaired.unknown)}",
    ]
    if repaired.empty_files:
        lines.append(f"  without a token, and no part of it: {', '.join(repaired.empty_files)}")
    return "\n".join(lines + [f"  note: {doubt}" for doubt in repair.doubts])
