"""`apr tokenize verify`: a directory of shards, counted and encoded again."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from apr.cli import output
from apr.cli.tokenize.options import PATH

if TYPE_CHECKING:
    from apr.shards.verifying.verification import Verification


def _sample(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    """A number of documents, None for all of them."""
    if value == "all":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number nor 'all'.")
    return int(value)


@click.command("verify")
@click.argument("directory", type=PATH)
@click.option(
    "--tokenizer",
    "tokenizer_path",
    type=PATH,
    help="Tokenizer directory, or a tokenizer.json; by default the one in encode.json.",
)
@click.option(
    "--sample",
    metavar="N|all",
    default="1000",
    show_default=True,
    callback=_sample,
    help="Documents to decode and encode again, beside the first and last of each shard.",
)
@output.standard_options
def command(directory: Path, tokenizer_path: Path | None, sample: int | None) -> output.Result:
    """Prove that the shards in DIRECTORY are what their manifest says.

    \b
    apr tokenize verify shards --tokenizer tok
    apr tokenize verify shards --sample all --json

    Every file is hashed and every id counted again. A sample of documents, the same in every run,
    is decoded, compared with the hashes of the original texts, and encoded again by the reference
    encoder. What could compare nothing is UNKNOWN and blocks (exit code 5); only the sources of
    the documents may stay UNKNOWN. What is not as recorded is FAIL (exit code 4, or 5 for another
    tokenizer).
    """  # noqa: D301  click reads the escaped character
    from apr.shards.verifying.verify import verify

    verification = verify(
        directory, tokenizer_path=tokenizer_path, sample=sample, progress=output.progress()
    )
    return output.Result(
        data=verification.as_dict(),
        text=_text(verification),
        refusal=verification.refusal,
        next_commands=_next(verification, tokenizer_path) if verification.verdict == "PASS" else (),
    )


def _next(verification: "Verification", tokenizer_path: Path | None) -> tuple[str, ...]:
    from apr.cli.tokenize.next_steps import after_verifying

    directory = verification.directory
    if pretrain := after_verifying(directory, verification.manifest, tokenizer_path):
        return pretrain
    given = ("--tokenizer", tokenizer_path) if tokenizer_path else ()
    words = ("apr", "tokenize", "explain", directory, "--token", 0, *given)
    return (output.command_line(*words),)


def _text(verification: "Verification") -> str:
    manifest = verification.manifest
    lines = [
        f"{verification.verdict}  {verification.directory}",
        f"  compared {verification.num_compared} of {manifest.total_documents} documents, "
        f"counted all {manifest.total_tokens} tokens",
        "",
    ]
    width = max(len(check.name) for check in verification.checks)
    for check in verification.checks:
        lines.append(f"{check.verdict:<7}  {check.name:<{width}}  {check.found}")
        if check.verdict != "PASS":
            lines.append(f"{'':<{width + 11}}expected: {check.expected}")
    if verification.verdict == "PASS" and verification.unknown:
        lines += ["", f"passed, but not known: {', '.join(verification.unknown)}"]
    return "\n".join(lines)
