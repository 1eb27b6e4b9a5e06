"""`apr corpus dedup`: what repeats other text, and what repeats held-out text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.corpus.options import (
    CORPUS_PATH,
    next_encode,
    place_text,
    reading_options,
    reading_words,
    verdict_options,
)
from apr.cli.values import Share, require_used
from apr.units import format_bytes, format_count

if TYPE_CHECKING:
    from apr.corpus.deduplication.dedup import Deduplication


@click.command("dedup")
@click.argument("train", nargs=-1, required=True, type=CORPUS_PATH)
@verdict_options
@click.option(
    "--jaccard",
    default=0.8,
    show_default=True,
    type=Share(0.3, 1.0),
    help="Similarity from which on two documents are near-duplicates.",
)
@click.option("--no-near", is_flag=True, help="Exact copies only; needs no extra package.")
@click.option(
    "--show",
    "num_shown",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="Pairs to show.",
)
@reading_options
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    train: tuple[str | Path, ...],
    held_out: tuple[str | Path, ...],
    directory: Path,
    jaccard: float,
    no_near: bool,
    **options: Any,
) -> output.Result:
    """Find documents in TRAIN that repeat one another, or held-out documents.

    \b
    apr corpus dedup data/train --held-out data/held-out -o data/duplicates.jsonl
    apr corpus dedup repos -o duplicates.jsonl --no-near

    The first document of each cluster stays, and held-out documents always stay. The output is a
    removal list for `apr tokenize encode-corpus --remove`; with --held-out, a certificate stands
    beside it that names both sides after the removals.
    """  # noqa: D301  click reads the escaped character
    from apr.corpus.deduplication.dedup import dedup_corpus

    if no_near:
        require_used(ctx, "jaccard", unless="with --no-near, which looks for exact copies only")
    found = dedup_corpus(
        train,
        held_out=held_out,
        output=directory,
        jaccard=None if no_near else jaccard,
        progress=output.progress(),
        **options,
    )
    return output.Result(
        data=found.as_dict(),
        text=_text(found),
        next_commands=_next(found, train, held_out, options),
    )


def _next(
    found: "Deduplication",
    train: tuple[str | Path, ...],
    held_out: tuple[str | Path, ...],
    options: dict[str, Any],
) -> tuple[str, ...]:
    if found.certificate is None:
        return next_encode(
            train, removals=[found.files.removals], certificate=None, options=options
        )
    words = [word for path in held_out for word in ("--held-out", path)]
    target = found.files.removals.with_name("contaminated.jsonl")
    # Beside a second list of the same step, nothing could tell which of them applies.
    again = ["--overwrite"] if target.exists() else []
    decontaminate = output.command_line(
        "apr", "corpus", "decontaminate", *train, *words, *reading_words(options),
        "--remove", found.files.removals, "--certificate", found.files.certificate,
        "-o", target, *again,
    )  # fmt: skip
    return (decontaminate,)


def _text(found: "Deduplication") -> str:
    search, near = found.search, found.search.near
    lines = [
        f"removal list: {found.files.removals}",
        f"  {format_count(found.removals.num_entries)} of "
        f"{format_count(found.train_before.num_documents)} training documents",
    ]
    for reason, count in sorted(search.counts.items()):
        size = format_bytes(search.sizes_bytes[reason])
        lines.append(f"  {reason:<26} {format_count(count)} documents, {size}")
    if near is not None and search.index.similar is not None:
        probability = search.index.similar.bands.probability(found.jaccard or 0)
        lines.append(
            f"  {format_count(near.num_pairs_compared)} pairs of training documents compared in "
            "full; a pair at the threshold is compared with probability "
            f"{probability:.4f}"
        )
        if near.num_limited:
            lines.append(
                f"  {format_count(near.num_limited)} documents resemble too many others: not "
                "every pair of theirs was compared"
            )
    account = found.account
    lines.append(f"  left out: {account.describe()}")
    if found.certificate is not None:
        lines.append(f"certificate: {found.files.certificate}")
        lines.append(f"  {found.certificate_sha256}")
        lines.append("decontaminate also takes what you will test on: --against FILE, repeatable")
    return "\n".join([*lines, *_pairs(search.worst)])


def _pairs(worst: list[dict[str, Any]]) -> list[str]:
    if not worst:
        return []
    lines = ["", "removed, what repeats held-out text first, then the largest:"]
    for pair in worst:
        lines.append(
            f"  {pair['reason']}, similarity {pair['jaccard']:.3f}, "
            f"{format_bytes(pair['size_bytes'])}"
        )
        lines.append(f"    {place_text(pair)}")
        lines.append(f"    repeats {place_text(pair['kept'])}")
    return lines
