"""`apr tokenize import-hf`: a published tokenizer becomes a tokenizer directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.free_name import free_name
from apr.cli.tokenize.options import PATH

if TYPE_CHECKING:
    from apr.tokenizer.directory import Import
    from apr.tokenizer.tokenizer import Tokenizer


@click.command("import-hf")
@click.option(
    "--input",
    "source",
    required=True,
    type=PATH,
    help="A tokenizer.json, or a directory with one.",
)
@click.option("-o", "--output", "directory", required=True, type=PATH, help="Directory.")
@click.option(
    "--include-added-tokens", is_flag=True, help="List the added tokens in vocab.json too."
)
@click.option("--eos-token", help="The document separator: one of the added tokens.")
@click.option("--overwrite", "--force", is_flag=True, help="Replace what apr wrote there.")
@output.standard_options
def command(
    source: Path,
    directory: Path,
    include_added_tokens: bool,
    eos_token: str | None,
    overwrite: bool,
) -> output.Result:
    """Take over a Hugging Face tokenizer, with its ids as they are.

    \b
    apr tokenize import-hf --input tokenizer.json -o tok --eos-token '<|endoftext|>'
    apr tokenize import-hf --input Qwen2.5-0.5B -o tok --include-added-tokens

    tokenizer.json is kept byte for byte. Only BPE can be imported.
    """  # noqa: D301  click reads the escaped character
    from apr.jobs.import_tokenizer import import_tokenizer

    tokenizer = import_tokenizer(
        source,
        output=directory,
        include_added_tokens=include_added_tokens,
        eos_token=eos_token,
        overwrite=overwrite,
    )
    separator = () if tokenizer.eos_token else ("--eos-token", "TEXT")
    next_command = output.command_line(
        "apr", "tokenize", "encode-corpus", "--corpus", "PATH",
        "--tokenizer", directory, *separator, "-o", free_name(Path("shards")),
    )  # fmt: skip
    return output.Result(
        data=_data(tokenizer, directory),
        text=_text(tokenizer, directory),
        next_commands=(next_command,),
    )


def _data(tokenizer: "Tokenizer", directory: Path) -> dict[str, Any]:
    imported = tokenizer.declaration.imported
    assert imported is not None
    definition = tokenizer.definition
    return {
        "output": str(directory),
        "vocab_size": _num_listed(imported),
        "vocab_size_without_added_tokens": imported.vocab_size_without_added_tokens,
        "vocab_size_with_added_tokens": imported.vocab_size_with_added_tokens,
        "includes_added_tokens": imported.includes_added_tokens,
        "merges_count": len(definition.merges),
        "eos_token": tokenizer.eos_token,
        "eos_token_id": tokenizer.eos_token_id,
        "config_eos_token": imported.config_eos_token,
        "added_tokens": [token.content for token in definition.added_tokens],
        "fingerprint": tokenizer.fingerprint,
    }


def _text(tokenizer: "Tokenizer", directory: Path) -> str:
    imported = tokenizer.declaration.imported
    assert imported is not None
    listed = "all of them" if imported.includes_added_tokens else "only the pieces of the model"
    separator = (
        f"separator {tokenizer.eos_token} = {tokenizer.eos_token_id}"
        if tokenizer.eos_token
        else f"no separator declared; candidates: {tokenizer.separator_candidates}"
    )
    return "\n".join(
        [
            f"tokenizer: {directory}",
            f"  {imported.vocab_size_without_added_tokens} entries, "
            f"{imported.vocab_size_with_added_tokens} with the added tokens; "
            f"vocab.json lists {listed}",
            f"  {len(tokenizer.definition.merges)} merges; {separator}",
            f"  fingerprint {tokenizer.fingerprint}",
        ]
    )


def _num_listed(imported: "Import") -> int:
    """Entries of vocab.json."""
    if imported.includes_added_tokens:
        return imported.vocab_size_with_added_tokens
    return imported.vocab_size_without_added_tokens
