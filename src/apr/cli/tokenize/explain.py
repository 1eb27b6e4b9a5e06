"""`apr tokenize explain`: the document, file and line a token came from."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from apr.cli import output
from apr.cli.tokenize.options import PATH

if TYPE_CHECKING:
    from apr.shards.tracing.explain import Explanation, Token


@click.command("explain")
@click.argument("directory", type=PATH)
@click.option(
    "--token", "token_index", required=True, type=int, help="Place in the stream, from 0."
)
@click.option(
    "--tokenizer",
    "tokenizer_path",
    type=PATH,
    help="Tokenizer directory, or a tokenizer.json; by default the one in encode.json.",
)
@click.option(
    "--context",
    type=click.IntRange(0, 10_000),
    default=8,
    show_default=True,
    help="Tokens to show on either side.",
)
@output.standard_options
def command(
    directory: Path, token_index: int, tokenizer_path: Path | None, context: int
) -> output.Result:
    """Say where one token of the shards in DIRECTORY comes from.

    \b
    apr tokenize explain shards --token 123456 --tokenizer tok

    The line is that of the document as it was encoded; of a table it is a line within the row.
    A row that says in `source` where it was before, as those of apr corpus split do, is quoted.
    """  # noqa: D301  click reads the escaped character
    from apr.shards.tracing.explain import explain

    explanation = explain(
        directory, token_index=token_index, tokenizer_path=tokenizer_path, context=context
    )
    return output.Result(data=explanation.as_dict(), text=_text(explanation))


def _text(explanation: "Explanation") -> str:
    token, unknown = explanation.token, explanation.unknown
    at = token.token_index - explanation.first_token
    lines = [
        f"token {token.token_index}: {_spelled(token)}",
        f"  document {token.document_index}, token {at} of {explanation.num_document_tokens} "
        f"in it, hash {explanation.document_hash}",
        f"  source: {_source(explanation)}",
    ]
    if explanation.place is not None and explanation.place.origin is not None:
        lines.append(f"  before: {explanation.place.origin}, as the row says")
    if "text" in unknown:
        lines.append(f"  text unknown: {unknown['text']}")
    elif explanation.characters != token.text:
        lines.append(f"  part of: {explanation.characters!r}")
    width = len(str(explanation.context[-1].token_index))
    lines.append("")
    for neighbour in explanation.context:
        mark = ">" if neighbour == token else " "
        lines.append(f"{mark} {neighbour.token_index:>{width}}  {_spelled(neighbour)}")
    return "\n".join(lines)


def _source(explanation: "Explanation") -> str:
    place, unknown = explanation.place, explanation.unknown
    where = f"unknown: {unknown['source']}" if place is None else place.source
    if place is not None and place.row is not None:
        where += f", row {place.row}"
    if explanation.line is None:
        return f"{where}; line unknown: {unknown['line']}"
    of_what = "" if place is not None and place.row is None else " of the document"
    return f"{where}, line {explanation.line}{of_what}"


def _spelled(token: "Token") -> str:
    words = f"id {token.id}" + (", separator" if token.is_separator else "")
    if token.data is None:
        return words
    return (
        f"{words} {token.text!r}" if token.text is not None else f"{words} bytes {token.data.hex()}"
    )
