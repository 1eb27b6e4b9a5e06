"""`apr tokenize encode-corpus`: a corpus becomes shards."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.tokenize.options import PATH, corpus_options
from apr.units import format_bytes, format_count

if TYPE_CHECKING:
    from apr.shards.manifest import Manifest


@click.command("encode-corpus")
@corpus_options
@click.option(
    "--tokenizer",
    "tokenizer_path",
    required=True,
    type=PATH,
    help="Tokenizer directory, or a tokenizer.json.",
)
@click.option("--eos-token", help="The document separator, where the tokenizer declares none.")
@click.option(
    "--eos-policy",
    type=click.Choice(["after", "between", "none"]),
    default="after",
    show_default=True,
    help="Separators for N documents: N, N-1 or 0.",
)
@click.option(
    "--shard-tokens", default=10_000_000, show_default=True, help="Tokens that end a shard."
)
@output.standard_options
def command(
    corpus: tuple[Path, ...],
    directory: Path,
    tokenizer_path: Path,
    eos_token: str | None,
    **options: Any,
) -> output.Result:
    """Turn a corpus into shards of token ids, with a manifest that proves them.

    \b
    apr tokenize encode-corpus --corpus src --tokenizer tok -o shards
    apr tokenize encode-corpus --corpus a.jsonl --tokenizer Qwen2.5-0.5B \\
        --eos-token '<|endoftext|>' -o shards

    Text that spells a control token is encoded as ordinary text. Input that claims to be valid
    and is not stops the command; in a source tree, what is no text is left out and counted.
    """  # noqa: D301  click reads the escaped character
    from apr.files import sha256_file
    from apr.shards import encode
    from apr.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokenizer_path, eos_token=eos_token)
    manifest = encode.encode_corpus(
        corpus, tokenizer=tokenizer, output=directory, progress=output.progress(), **options
    )
    identity = {
        "output": str(directory),
        "manifest_sha256": sha256_file(directory / "manifest.json"),
    }
    next_command = output.command_line(
        "apr", "pretrain", "--dataset", directory, "--tokenizer", tokenizer_path,
        "--arch", "tiny", "--run-dir", "runs/first", "--dry-run",
    )  # fmt: skip
    return output.Result(
        data=identity | manifest.model_dump(by_alias=True),
        text=_manifest_text(manifest, directory),
        next_commands=(next_command,),
    )


def _manifest_text(manifest: "Manifest", directory: Path) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in manifest.drops.items())
    separator = "" if manifest.eos_token is None else f" {manifest.eos_token}"
    shards = "1 shard" if manifest.shard_count == 1 else f"{manifest.shard_count} shards"
    return "\n".join(
        [
            f"shards: {directory}",
            f"  {format_count(manifest.total_tokens)} tokens in {shards}, "
            f"{manifest.statistics.bytes_per_token:.2f} bytes per token",
            f"  {format_count(manifest.total_documents)} documents, "
            f"{format_bytes(manifest.text_bytes)}; left out: {left_out or 'nothing'}",
            f"  {manifest.eos_token_count} separators{separator} ({manifest.eos_policy})",
            f"  tokenizer fingerprint {manifest.tokenizer_fingerprint}",
        ]
    )
