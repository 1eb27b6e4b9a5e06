"""`apr tokenize`: train tokenizers, turn a corpus into shards."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.units import format_bytes, format_count

if TYPE_CHECKING:
    from apr.corpus.drops import Drops
    from apr.shards.manifest import Manifest
    from apr.tokenizer.tokenizer import Tokenizer

_PATH = click.Path(path_type=Path)


def _corpus_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that reads a corpus and writes a directory."""
    for option in (
        click.option("--overwrite", "--force", is_flag=True, help="Replace what apr wrote there."),
        click.option("-o", "--output", "directory", required=True, type=_PATH, help="Directory."),
        click.option(
            "--content-field", default="content", show_default=True, help="Text field in .jsonl."
        ),
        click.option(
            "--corpus",
            required=True,
            multiple=True,
            type=_PATH,
            help="A .jsonl file, a text file, or a directory of either; repeatable.",
        ),
    ):
        command = option(command)
    return command


@click.group("tokenize", short_help="Train tokenizers; turn a corpus into shards.")
def command() -> None:
    """Turn text into token ids, and learn how.

    \b
    apr tokenize train --corpus src --vocab-size 4096 -o tok
    apr tokenize encode-corpus --corpus src --tokenizer tok -o shards
    """  # noqa: D301  click reads the escaped character


@command.command("train", short_help="Learn a byte-level BPE tokenizer from a corpus.")
@_corpus_options
@click.option(
    "--vocab-size", default=50257, show_default=True, help="Entries, the separator included."
)
@click.option(
    "--min-frequency", default=2, show_default=True, help="Occurrences that make a pair a piece."
)
@click.option(
    "--normalization",
    type=click.Choice(["nfc", "none"]),
    default="nfc",
    show_default=True,
    help="Unicode form that text is brought into first.",
)
@click.option(
    "--eos-token", default="<|endoftext|>", show_default=True, help="The document separator."
)
@output.standard_options
def train(corpus: tuple[Path, ...], directory: Path, **options: Any) -> output.Result:
    """Learn a byte-level BPE tokenizer from a corpus.

    \b
    apr tokenize train --corpus src --vocab-size 4096 -o tok
    apr tokenize train --corpus a.jsonl --corpus b.jsonl --content-field text -o tok

    The same corpus gives the same bytes of tokenizer.json on every machine.
    """  # noqa: D301  click reads the escaped character
    from apr.corpus.drops import Drops
    from apr.jobs.train_tokenizer import train_tokenizer

    drops = Drops()
    tokenizer = train_tokenizer(
        corpus, output=directory, drops=drops, progress=output.progress(), **options
    )
    next_command = output.command_line(
        "apr", "tokenize", "encode-corpus", *_repeat("--corpus", corpus),
        "--tokenizer", directory, "-o", "shards",
    )  # fmt: skip
    return output.Result(
        data=_tokenizer_data(tokenizer, directory, drops),
        text=_tokenizer_text(tokenizer, directory, drops),
        next_commands=(next_command,),
    )


@command.command("encode-corpus", short_help="Turn a corpus into shards of token ids.")
@_corpus_options
@click.option(
    "--tokenizer",
    "tokenizer_path",
    required=True,
    type=_PATH,
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
def encode_corpus(
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


def _repeat(option: str, values: tuple[Path, ...]) -> list[object]:
    return [word for value in values for word in (option, value)]


def _tokenizer_data(tokenizer: "Tokenizer", directory: Path, drops: "Drops") -> dict[str, Any]:
    return {
        "output": str(directory),
        "vocab_size": tokenizer.vocab_size,
        "merges_count": len(tokenizer.merges),
        "eos_token": tokenizer.eos_token,
        "eos_token_id": tokenizer.eos_token_id,
        "fingerprint": tokenizer.fingerprint,
        "training": tokenizer.training.model_dump() if tokenizer.training else None,
        "drops": drops.counts,
    }


def _tokenizer_text(tokenizer: "Tokenizer", directory: Path, drops: "Drops") -> str:
    training = tokenizer.training
    lines = [
        f"tokenizer: {directory}",
        f"  {tokenizer.vocab_size} entries, {len(tokenizer.merges)} merges; "
        f"separator {tokenizer.eos_token} = {tokenizer.eos_token_id}",
    ]
    if training is not None:
        lines.append(
            f"  learned from {format_count(training.num_documents)} documents, "
            f"{format_bytes(training.text_bytes)}; left out: {drops.describe()}"
        )
        if tokenizer.vocab_size < training.vocab_size:
            lines.append(
                f"  fewer than the {training.vocab_size} asked for: no other pair occurs "
                f"{training.min_frequency} times"
            )
    return "\n".join([*lines, f"  fingerprint {tokenizer.fingerprint}"])


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
