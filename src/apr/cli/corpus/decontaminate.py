"""`apr corpus decontaminate`: what a model would be tested on, found in what it is trained on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.corpus.options import (
    CORPUS_PATH,
    next_encode,
    place_text,
    reading_options,
    verdict_options,
)
from apr.cli.values import LOCAL_PATH, Share
from apr.units import format_count

if TYPE_CHECKING:
    from apr.corpus.certificate import NgramCheck
    from apr.corpus.decontamination.decontaminate import Decontamination


@click.command("decontaminate")
@click.argument("train", nargs=-1, required=True, type=CORPUS_PATH)
@click.option(
    "--against",
    multiple=True,
    type=CORPUS_PATH,
    help="Evaluation items: .jsonl(.gz) as HumanEval and MBPP are published; repeatable.",
)
@verdict_options
@click.option(
    "--remove",
    "removals",
    multiple=True,
    type=LOCAL_PATH,
    help="An earlier removal list, applied first; repeatable.",
)
@click.option(
    "--words",
    "num_words",
    default=13,
    show_default=True,
    type=click.IntRange(8, 64),
    help="Words that make a run.",
)
@click.option(
    "--containment",
    default=0.5,
    show_default=True,
    type=Share(0.05, 1.0),
    help="Share of common runs from which on a document is removed.",
)
@click.option(
    "--show",
    "num_shown",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="Documents to show.",
)
@reading_options
@output.standard_options
def command(
    train: tuple[str | Path, ...],
    directory: Path,
    removals: tuple[Path, ...],
    **options: Any,
) -> output.Result:
    """Find documents in TRAIN that hold evaluation items, or much of a held-out document.

    \b
    apr corpus decontaminate data/train --held-out data/held-out --against HumanEval.jsonl.gz \\
        --against mbpp.jsonl --remove data/duplicates.jsonl -o data/contaminated.jsonl

    A document is suspect when it holds half of the 13-word runs of a prompt, a solution or a test,
    whatever the case and white space and even if one name was changed. Licence notices and imports
    do not count. Paraphrase is not found. The output is a removal list with a certificate of what
    is left beside it.
    """  # noqa: D301  click reads the escaped character
    from apr.corpus.decontamination.decontaminate import decontaminate_corpus

    found = decontaminate_corpus(
        train, removals=removals, output=directory, progress=output.progress(), **options
    )
    lists = [*removals, found.files.removals]
    return output.Result(
        data=found.as_dict(),
        text=_text(found),
        next_commands=next_encode(
            train, removals=lists, certificate=found.files.certificate, options=options
        ),
    )


def _text(found: "Decontamination") -> str:
    lines = [
        f"removal list: {found.files.removals}",
        f"  {format_count(found.removals.num_entries)} of "
        f"{format_count(found.train_before.num_documents)} training documents",
    ]
    lines += [f"  {reason:<22} {count}" for reason, count in sorted(found.counts.items())]
    for check in found.certificate.checks:
        if check.kind == "ngram":
            lines += _check_lines(check)
    account = found.account
    lines.append(f"  left out: {account.describe()}")
    lines += [f"certificate: {found.files.certificate}", f"  {found.certificate_sha256}"]
    if found.worst:
        lines += ["", "removed, the largest shares first:"]
    for removal in found.worst:
        share = (
            f", share {removal['share']:.2f} of {removal['found']}" if "share" in removal else ""
        )
        renamed = ", one name changed" if removal.get("renamed") else ""
        lines.append(f"  {removal['reason']}{share}{renamed}")
        lines.append(f"    {place_text(removal)}")
    return "\n".join(lines)


def _check_lines(check: "NgramCheck") -> list[str]:
    lines = [
        f"  {each.name}: {each.num_items} items"
        + (f", {each.num_too_short} too short to be recognised" if each.num_too_short else "")
        for each in check.evaluation_sets
    ]
    for what, share in (
        ("an evaluation item", check.largest_containment_left),
        ("a held-out document", check.largest_overlap_left),
    ):
        if share is not None:
            lines.append(f"  largest share of {what} that is left: {share:.3f}")
    return [*lines, f"  not found by this: {check.misses}"]
