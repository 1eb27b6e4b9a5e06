"""The demo's two corpora: the split of `apr corpus split`, with a draw that suits a demo."""

from collections.abc import Sequence
from pathlib import Path

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document
from apr.corpus.splitting.split import Split, write_split
from apr.corpus.splitting.split_rule import SplitRule
from apr.errors import Refusal
from apr.progress import Report
from apr.units import format_bytes

_FRACTION = 0.06
_LARGEST_SHARE = 0.15
_DRAWS = 1000


def write_demo_corpus(
    documents: Sequence[Document],
    directory: Path,
    *,
    min_documents: int,
    min_bytes: int,
    seed: int,
    account: Account,
    progress: Report,
) -> Split:
    """Hold out whole packages, enough to measure on and little enough to train on the rest.

    The first draw from `seed` on that holds out enough and at most a seventh is taken.

    Refuses: demo.no-split, corpus.split-impossible.
    Writes: train/, held-out/, split.json, certificate.json below `directory`.
    """
    rule = _choose_rule(documents, min_documents=min_documents, min_bytes=min_bytes, seed=seed)
    directory.mkdir()
    return write_split(
        lambda _activity: iter(documents), directory, rule=rule, account=account, progress=progress
    )


def _choose_rule(
    documents: Sequence[Document], *, min_documents: int, min_bytes: int, seed: int
) -> SplitRule:
    sizes = [(document.group, len(document.text.encode("utf-8"))) for document in documents]
    total_bytes = sum(size_bytes for _, size_bytes in sizes)
    for draw in range(seed, seed + _DRAWS):
        rule = SplitRule("repo", _FRACTION, draw)
        held_out = [size for group, size in sizes if rule.side_of(group) == "held-out"]
        is_enough = len(held_out) >= min_documents and sum(held_out) >= min_bytes
        if is_enough and sum(held_out) <= _LARGEST_SHARE * total_bytes:
            return rule
    raise Refusal(
        "demo.no-split",
        "the split into training and held-out documents",
        found=f"{_DRAWS} draws from {len(sizes)} documents, {format_bytes(total_bytes)}",
        expected=f"one that holds out {min_documents} documents, {format_bytes(min_bytes)} and at "
        f"most {_LARGEST_SHARE:.0%} of the text",
        fix="use a Python with its whole standard library",
    )
