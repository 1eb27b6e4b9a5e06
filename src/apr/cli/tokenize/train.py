"""`apr tokenize train`: a corpus becomes a tokenizer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.corpus.options import source_words
from apr.cli.free_name import free_name
from apr.cli.tokenize.options import corpus_options, repeat
from apr.units import format_bytes, format_count

if TYPE_CHECKING:
    from apr.corpus.reading.account import Account
    from apr.tokenizer.tokenizer import Tokenizer


@click.command("train")
@corpus_options
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
def command(corpus: tuple[Path | str, ...], directory: Path, **options: Any) -> output.Result:
    """Learn a byte-level BPE tokenizer from a corpus.

    \b
    apr tokenize train --corpus src --vocab-size 4096 -o tok
    apr tokenize train --corpus a.jsonl --corpus b.jsonl --content-field text -o tok

    The same corpus gives the same bytes of tokenizer.json on every machine.
    """  # noqa: D301  click reads the escaped character
    from apr.corpus.reading.account import Account
    from apr.jobs.train_tokenizer import train_tokenizer

    drops = Account()
    tokenizer = train_tokenizer(
        corpus, output=directory, drops=drops, progress=output.progress(), **options
    )
    return output.Result(
        data=_tokenizer_data(tokenizer, directory, drops),
        text=_tokenizer_text(tokenizer, directory, drops),
        next_commands=(_encode(corpus, directory, options),),
    )


def _encode(corpus: tuple[Path | str, ...], directory: Path, options: dict[str, Any]) -> str:
    """The command that encodes what the lists beside the corpus leave of it, as it was read."""
    from apr.corpus.beside import cleaning_beside

    cleaning = cleaning_beside(corpus)
    return output.command_line(
        "apr", "tokenize", "encode-corpus", *repeat("--corpus", corpus), *source_words(options),
        *repeat("--remove", cleaning.removals),
        *repeat("--certificate", [cleaning.certificate] if cleaning.certificate else []),
        "--tokenizer", directory, "-o", free_name(Path("shards/train")),
    )  # fmt: skip


def _tokenizer_data(tokenizer: "Tokenizer", directory: Path, drops: "Account") -> dict[str, Any]:
    return {
        "output": str(directory),
        "vocab_size": tokenizer.vocab_size,
        "merges_count": len(tokenizer.merges),
        "eos_token": tokenizer.eos_token,
        "eos_token_id": tokenizer.eos_token_id,
        "fingerprint": tokenizer.fingerprint,
        "training": tokenizer.training.model_dump() if tokenizer.training else None,
        "drops": drops.drops,
    }


def _tokenizer_text(tokenizer: "Tokenizer", directory: Path, drops: "Account") -> str:
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
