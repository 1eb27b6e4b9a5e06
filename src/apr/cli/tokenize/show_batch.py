"""`apr tokenize show-batch`: the text that a step of a run trains on."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from apr.cli import output
from apr.cli.tokenize.options import PATH

if TYPE_CHECKING:
    from apr.jobs.show_batch import Piece, ShownBatch, ShownRow


@click.command("show-batch")
@click.argument("run", type=PATH)
@click.option("--step", required=True, type=int, help="Optimizer step, from 1; also a future one.")
@click.option("--row", type=int, help="One row of the batch, from 0; by default all.")
@output.standard_options
def command(run: Path, step: int, row: int | None) -> output.Result:
    """Show the exact text that step N of the run in RUN trains on.

    \b
    apr tokenize show-batch runs/first --step 100 --row 0

    Of each row it says which tokens it holds, which documents they belong to and where those came
    from. Shards or a tokenizer that are not those of the run are refused. A character that a row
    cuts in two is shown as its bytes, escaped.
    """  # noqa: D301  click reads the escaped character
    from apr.jobs.show_batch import show_batch

    batch = show_batch(run, step=step, row=row, progress=output.progress())
    following = ("apr", "tokenize", "show-batch", run, "--step", step + 1)
    return output.Result(
        data=batch.as_dict(),
        text=_text(batch),
        next_commands=(output.command_line(*following),),
    )


def _text(batch: "ShownBatch") -> str:
    past = "" if batch.step <= batch.num_steps else f", which ends after step {batch.num_steps}"
    shards = ", ".join(sha256[:12] for sha256 in batch.manifests_sha256.values())
    lines = [
        f"step {batch.step} of {batch.run_dir}{past}",
        f"  rows of {batch.sequence_length} + 1 tokens, shards {shards}",
    ]
    is_mixture = len(batch.manifests_sha256) > 1
    for row in batch.rows:
        lines += ["", *_row_lines(row, row.dataset if is_mixture else "the data")]
    return "\n".join(lines)


def _row_lines(row: "ShownRow", data: str) -> list[str]:
    last = row.first_token + row.num_tokens - 1
    lines = [
        f"== row {row.row}: row {row.row_index} of {data} in epoch {row.epoch}, "
        f"tokens {row.first_token} to {last}"
    ]
    for piece in row.pieces:
        lines += [_heading(piece), piece.text]
        if piece.separator is not None:
            lines.append(f"-- separator {piece.separator}")
    return lines


def _heading(piece: "Piece") -> str:
    source = "source unknown" if piece.source is None else piece.source
    if piece.row is not None:
        source += f", row {piece.row}"
    begins = "from its beginning" if piece.begins_document else "continued"
    ends = "to its end" if piece.ends_document else "to be continued"
    return f"-- document {piece.document} ({source}), {begins}, {ends}"
