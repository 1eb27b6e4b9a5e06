"""`apr tokenize diff`: what two directories of shards have in common, and what not."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from apr.cli import output
from apr.cli.tokenize.options import PATH
from apr.errors import Refusal

if TYPE_CHECKING:
    from apr.shards.tracing.difference import Difference, Example


@click.command("diff")
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--show",
    type=click.IntRange(0, 100_000),
    default=10,
    show_default=True,
    help="Documents to name of each kind.",
)
@output.standard_options
def command(a: Path, b: Path, show: int) -> output.Result:
    """Compare the shards in directory A with those in directory B.

    \b
    apr tokenize diff shards-monday shards-tuesday --show 50

    Documents are compared by content: only in A, only in B, changed (the same source and row with
    another content) or moved (the same content elsewhere). Sources are compared as they were named
    when the corpus was encoded. Exit code 0 means the same data byte for byte, 5 that it differs.
    """  # noqa: D301  click reads the escaped character
    from apr.shards.tracing.difference import compare

    difference = compare(a, b, num_examples=show, progress=output.progress())
    return output.Result(
        data=difference.as_dict(),
        text=_text(difference),
        exit_code=0 if difference.is_equal else Refusal.exit_code,
        next_commands=() if difference.is_equal else _next(a, b),
    )


def _next(a: Path, b: Path) -> tuple[str, ...]:
    return tuple(output.command_line("apr", "tokenize", "verify", side) for side in (a, b))


def _text(difference: "Difference") -> str:
    same = "the same data" if difference.is_equal else "different"
    lines = [f"{same}: {difference.a} and {difference.b}"]
    for name, (in_a, in_b) in difference.fields.items():
        lines.append(f"  {name}: {in_a} | {in_b}")
    lines += ["", f"  {difference.num_same} documents in both"]
    if difference.unknown:
        lines.append(f"  moved or changed: unknown, {difference.unknown['num_moved']}")
    else:
        lines.append(f"  {difference.num_moved} in both, moved to another source or row")
        lines.append(f"  {difference.num_changed} changed, at the same source and row")
    lines += [
        f"  {difference.num_only_in_a} only in a{_reasons(difference.why_only_in_a, 'b')}",
        f"  {difference.num_only_in_b} only in b{_reasons(difference.why_only_in_b, 'a')}",
    ]
    if not difference.is_same_order:
        lines.append("  those in both stand in another order")
    if difference.examples:
        lines += ["", *map(_example, difference.examples)]
    return "\n".join(lines)


def _reasons(why: dict[str, int], other: str) -> str:
    fates = ", ".join(f"{count} {reason}" for reason, count in why.items())
    return f" (in {other}: {fates})" if why else ""


def _example(example: "Example") -> str:
    sides = [
        f"{name} {number}" + (f" {place}" if place else "")
        for name, number, place in (
            ("a", example.document_a, example.place_a),
            ("b", example.document_b, example.place_b),
        )
        if number is not None
    ]
    return f"  {example.kind}: {' -> '.join(sides)}" + (f" ({example.why})" if example.why else "")
