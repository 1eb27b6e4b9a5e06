"""Set whole groups of documents aside, so that a model is judged on text it never saw.

Files of one package resemble each other more than files of different packages, so a document
follows its group. Which groups are set aside depends on the hash of their names, not on any
order of files.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from apr.corpus.documents import Document
from apr.corpus.drops import Drops
from apr.errors import Refusal

# A group this large would unbalance the split wherever it went but into the training part.
_LARGEST_HELD_OUT_SHARE = 0.1
_MOST_HELD_OUT_SHARE = 0.5
# One package says little about the others: larger groups are set aside only if they must be.
_LARGE_SHARE_OF_HELD_OUT = 0.25


@dataclass(frozen=True)
class Split:
    """Two sets of documents without a common group and without a common text."""

    train: list[Document]
    held_out: list[Document]
    held_out_groups: tuple[str, ...]


def split_documents(
    documents: Sequence[Document],
    *,
    fraction: float,
    min_documents: int,
    min_bytes: int,
    seed: int = 0,
    drops: Drops,
) -> Split:
    """Hold out groups until `fraction` of the bytes and both minimums are reached.

    A training document with the text of a held-out one is left out and counted in `drops` as
    `duplicate_of_held_out`. Documents keep their order.

    Refuses: corpus.split-impossible.
    """
    sizes = Counter[str]()
    for document in documents:
        sizes[document.group] += _size_bytes(document)
    wanted_bytes = max(min_bytes, fraction * sizes.total())
    held_out_groups = _choose(documents, sizes, wanted_bytes, min_documents, seed)
    held_out = [document for document in documents if document.group in held_out_groups]
    held_out_texts = {document.text for document in held_out}
    train: list[Document] = []
    for document in documents:
        if document.group in held_out_groups:
            continue
        if document.text in held_out_texts:
            drops.add("duplicate_of_held_out", document.place)
            continue
        train.append(document)
    if not train:
        raise _impossible("no text that is not held out as well", "documents to train on")
    return Split(train, held_out, tuple(sorted(held_out_groups)))


def _choose(
    documents: Sequence[Document],
    sizes: Counter[str],
    wanted_bytes: float,
    min_documents: int,
    seed: int,
) -> set[str]:
    counts = Counter(document.group for document in documents)
    largest_bytes = _LARGEST_HELD_OUT_SHARE * sizes.total()
    eligible = [group for group in sizes if sizes[group] <= largest_bytes]
    chosen: set[str] = set()
    held_bytes = held_documents = 0
    large_bytes = _LARGE_SHARE_OF_HELD_OUT * wanted_bytes
    for group in sorted(
        eligible, key=lambda group: (sizes[group] > large_bytes, _rank(group, seed))
    ):
        if held_bytes >= wanted_bytes and held_documents >= min_documents:
            break
        chosen.add(group)
        held_bytes += sizes[group]
        held_documents += counts[group]
    found = f"{held_documents} documents, {held_bytes} bytes in {len(chosen)} groups"
    if held_bytes < wanted_bytes or held_documents < min_documents or not chosen:
        expected = f"at least {max(1, min_documents)} documents, {wanted_bytes:.0f} bytes"
        raise _impossible(f"{found} that are small enough to set aside", expected)
    if held_bytes > _MOST_HELD_OUT_SHARE * sizes.total():
        raise _impossible(f"{found} set aside", f"less than half of {sizes.total()} bytes")
    return chosen


def _rank(group: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{group}".encode(), digest_size=16).digest()


def _size_bytes(document: Document) -> int:
    return len(document.text.encode("utf-8"))


def _impossible(found: str, expected: str) -> Refusal:
    return Refusal(
        "corpus.split-impossible",
        "the split into training and held-out documents",
        found=found,
        expected=expected,
        fix="use a larger corpus with more, and more even, top-level packages",
    )
