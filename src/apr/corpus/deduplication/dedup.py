"""A removal list for what repeats other text, and a certificate that nothing repeats held-out text.

The list is applied before the certificate is written: the training set it names is what a reader
of the list is left with, and its texts are compared with the held-out ones once more.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.corpus.certificate import (
    Certificate,
    Check,
    DocumentSet,
    ExactCheck,
    NearCheck,
    RemovalList,
    write_certificate,
)
from apr.corpus.certify import (
    OutputFiles,
    Previous,
    certify,
    nothing_left,
    require_two_sides,
)
from apr.corpus.deduplication.document_index import DocumentIndex
from apr.corpus.deduplication.duplicates import DuplicateSearch
from apr.corpus.reading.account import Account
from apr.corpus.reading.listed import ListedCorpus
from apr.corpus.removals import Removals, write_removals
from apr.corpus.similarity import normal_form
from apr.corpus.similarity.shingles import SHINGLE_TOKENS
from apr.errors import Refusal
from apr.progress import Report, silent


@dataclass(frozen=True)
class Deduplication:
    """What a search for duplicates gave."""

    files: OutputFiles
    removals: RemovalList
    train_before: DocumentSet
    certificate: Certificate | None
    certificate_sha256: str | None
    search: DuplicateSearch
    jaccard: float | None
    account: Account

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        near = self.search.near
        return {
            "removals": str(self.files.removals),
            "removals_sha256": self.removals.sha256,
            "num_removed": self.removals.num_entries,
            "reasons": {
                reason: {"num_documents": count, "text_bytes": self.search.sizes_bytes[reason]}
                for reason, count in sorted(self.search.counts.items())
            },
            "jaccard": self.jaccard,
            "train_before": self.train_before.model_dump(),
            "num_pairs_compared": near.num_pairs_compared if near else 0,
            "num_limited": near.num_limited if near else 0,
            "worst": self.search.worst,
            "certificate": str(self.files.certificate) if self.certificate else None,
            "certificate_sha256": self.certificate_sha256,
            "certified": self.certificate.model_dump(by_alias=True) if self.certificate else None,
            "account": self.account.as_dict(),
        }


def dedup_corpus(
    train: Sequence[Path | str],
    *,
    held_out: Sequence[Path | str] = (),
    output: Path,
    jaccard: float | None = 0.8,
    certificate: Path | None = None,
    content_field: str = "content",
    exclude: Sequence[str] = (),
    max_quarantined: int | None = 0,
    num_shown: int = 10,
    overwrite: bool = False,
    progress: Report = silent,
) -> Deduplication:
    """Find training documents that repeat others or held-out ones; keep the first of each.

    `jaccard` is the similarity from which on documents are near-duplicates, None for exact copies
    only. `certificate` is an earlier one of the same documents, whose other checks are carried on.

    Refuses: corpus.sides-overlap, corpus.no-rensa, corpus.input-changed,
    corpus.certificate-mismatch, corpus.nothing-left, corpus.still-shared, files.exists,
    files.foreign-content, files.output-overlaps-input, and as
    apr.corpus.reading.documents.read_documents.
    Writes: a removal list, and beside it a certificate when there are held-out documents.
    """
    require_two_sides(train, held_out)
    files = OutputFiles.below(output)
    files.require_writable([*train, *held_out], overwrite=overwrite)
    previous = Previous.read(certificate) if certificate else None
    sides = [
        ListedCorpus(
            paths, content_field=content_field, exclude=exclude, max_quarantined=max_quarantined
        )
        for paths in (train, held_out)
        if paths
    ]
    search = DuplicateSearch(
        sides[0],
        sides[1] if held_out else None,
        jaccard=jaccard,
        num_shown=num_shown,
        progress=progress,
    )
    index = search.index
    held_out_set = index.set_of(slice(index.num_held_out)) if held_out else None
    train_before = index.set_of(slice(index.num_held_out, None))
    if previous is not None:
        previous.require_fits([train_before], held_out_set, certificate)
    made = sha256 = None
    with files.staged(overwrite=overwrite) as staged:
        with tempfile.TemporaryFile(dir=staged.removals.parent) as spill:
            listed = write_removals(staged.removals, search.removals(spill))
        left = documents_left(index, staged.removals)
        if not left.any():
            raise nothing_left(train_before.num_documents, search.counts)
        if held_out_set is not None:
            made = certify(
                previous,
                train=index.set_of(left),
                held_out=held_out_set,
                checks=_checks(search, jaccard),
                removals=[listed],
            )
            sha256 = write_certificate(staged.certificate, made)
    return Deduplication(
        files=files,
        removals=listed,
        train_before=train_before,
        certificate=made,
        certificate_sha256=sha256,
        search=search,
        jaccard=jaccard,
        account=sides[0].account,
    )


def documents_left(index: DocumentIndex, removals: Path) -> NDArray[np.bool_]:
    """The training documents that a written list leaves, none of which is held out as well.

    Shapes: [documents], one entry per document of the index.

    Refuses: corpus.still-shared.
    """
    of_list = Removals.load([removals]).filter()
    left = np.zeros(index.num_documents, np.bool_)
    for at in range(index.num_held_out, index.num_documents):
        left[at] = of_list.reason(index.document_hashes[at].tobytes()) is None
    held_out = index.normal_hashes[: index.num_held_out].view("V16").ravel()
    shared = np.intersect1d(held_out, index.normal_hashes[left].view("V16").ravel())
    if len(shared):
        raise Refusal(
            "corpus.still-shared",
            removals,
            found=f"{len(shared)} texts on both sides after the removals",
            expected="none",
            fix="this is a bug in apr; please report it with the input that shows it",
        )
    return left


def _checks(search: DuplicateSearch, jaccard: float | None) -> list[Check]:
    exact = ExactCheck(
        rule=normal_form.RULE, num_removed=search.counts.get("duplicate_of_held_out", 0)
    )
    similar, largest_left = search.index.similar, search.largest_jaccard_left
    if similar is None or jaccard is None:
        return [exact]
    return [
        exact,
        NearCheck(
            rule=f"Jaccard similarity of the sets of {SHINGLE_TOKENS}-token shingles, without "
            "regard to case and white space, of every training with every held-out document",
            jaccard=jaccard,
            shingle_tokens=SHINGLE_TOKENS,
            num_compared=len(similar.to_held_out),
            num_removed=search.counts.get("near_duplicate_of_held_out", 0),
            largest_jaccard_left=None if largest_left is None else round(largest_left, 6),
        ),
    ]
