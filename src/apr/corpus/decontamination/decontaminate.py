"""A removal list for what a model would be tested on, and a certificate of what is left.

The list is read back and applied before the certificate is written, and every remaining document
is looked at again: the largest shares that the certificate names were measured on what stays.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from apr.corpus.certificate import (
    Certificate,
    Check,
    DocumentSet,
    DocumentTally,
    ExactCheck,
    NgramCheck,
    RemovalList,
    write_certificate,
)
from apr.corpus.certify import OutputFiles, Previous, certify, nothing_left, require_two_sides
from apr.corpus.decontamination.contamination import FEWEST_WORDS, Forbidden, Suspicion
from apr.corpus.decontamination.references import Match
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document, document_hash
from apr.corpus.reading.listed import ListedCorpus
from apr.corpus.removals import (
    Removal,
    RemovalFilter,
    Removals,
    require_matched,
    write_removals,
)
from apr.corpus.similarity import normal_form
from apr.errors import Refusal, UsageRefusal
from apr.progress import Report, silent

MISSES = (
    "paraphrase, translation into another language, several changed names at once, and texts of "
    f"fewer than {FEWEST_WORDS} words"
)

_BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class Decontamination:
    """What a search for evaluation items and held-out text gave."""

    files: OutputFiles
    removals: RemovalList
    train_before: DocumentSet
    """After the earlier removal lists."""
    certificate: Certificate
    certificate_sha256: str
    counts: dict[str, int]
    worst: list[dict[str, Any]]
    account: Account

    def as_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "removals": str(self.files.removals),
            "removals_sha256": self.removals.sha256,
            "num_removed": self.removals.num_entries,
            "reasons": dict(sorted(self.counts.items())),
            "train_before": self.train_before.model_dump(),
            "worst": self.worst,
            "certificate": str(self.files.certificate),
            "certificate_sha256": self.certificate_sha256,
            "certified": self.certificate.model_dump(by_alias=True),
            "account": self.account.as_dict(),
        }


def decontaminate_corpus(
    train: Sequence[Path | str],
    *,
    against: Sequence[Path | str] = (),
    held_out: Sequence[Path | str] = (),
    removals: Sequence[Path] = (),
    output: Path,
    num_words: int = 13,
    containment: float = 0.5,
    certificate: Path | None = None,
    content_field: str = "content",
    exclude: Sequence[str] = (),
    max_quarantined: int | None = 0,
    num_shown: int = 10,
    overwrite: bool = False,
    progress: Report = silent,
) -> Decontamination:
    """Find training documents that hold evaluation items, or much of a held-out document.

    `removals` are earlier lists, applied first. `num_words` words make a run; a document is
    removed when it holds the share `containment` of the runs of an item's prompt, solution or
    test, or shares that much with a held-out document. `certificate` is an earlier one of the
    same documents, whose other checks are carried on.

    Refuses: corpus.nothing-to-compare, corpus.evaluation-damaged, corpus.evaluation-empty,
    corpus.sides-overlap, corpus.removals-damaged, corpus.removals-unmatched,
    corpus.certificate-mismatch, corpus.nothing-left, corpus.still-shared, files.exists,
    files.foreign-content, files.output-overlaps-input, and as
    apr.corpus.reading.documents.read_documents.
    Writes: a removal list and beside it a certificate.
    """
    if not against and not held_out:
        _refuse_nothing()
    require_two_sides(train, held_out)
    files = OutputFiles.below(output)
    files.require_writable([*train, *held_out, *against, *removals], overwrite=overwrite)
    previous = Previous.read(certificate) if certificate else None
    forbidden = Forbidden(num_words=num_words, containment=containment)
    forbidden.add_evaluation_sets(against, content_field=content_field)
    corpora = [
        ListedCorpus(
            paths, content_field=content_field, exclude=exclude, max_quarantined=max_quarantined
        )
        for paths in (train, held_out)
        if paths
    ]
    if held_out:
        forbidden.add_held_out(corpora[1], progress)
    search = _Search(corpora[0], forbidden, num_shown=num_shown, progress=progress)
    with files.staged(overwrite=overwrite) as staged:
        earlier = Removals.load(removals)
        of_earlier = earlier.filter()
        listed = write_removals(staged.removals, search.removals(of_earlier))
        held_out_set = forbidden.held_out.as_set() if held_out else None
        if previous is not None:
            stages = [search.all_documents.as_set(), search.before.as_set()]
            previous.require_fits(stages, held_out_set, certificate)
        require_matched(removals, earlier.lists, of_earlier.matched_lists)
        left = search.measure_left(Removals.load([*removals, staged.removals]))
        made = certify(
            previous,
            train=left.documents.as_set(),
            held_out=held_out_set,
            checks=_checks(forbidden, search.counts, left),
            removals=[*earlier.lists, listed],
        )
        sha256 = write_certificate(staged.certificate, made)
    return Decontamination(
        files=files,
        removals=listed,
        train_before=search.before.as_set(),
        certificate=made,
        certificate_sha256=sha256,
        counts=search.counts,
        worst=search.worst,
        account=corpora[0].account,
    )


@dataclass
class _Left:
    """What was measured on the documents that stay."""

    documents: DocumentTally = field(default_factory=DocumentTally)
    evaluation: float = 0.0
    held_out: float = 0.0


class _Search:
    """Looks at every training document, before and after the removals."""

    def __init__(
        self, train: ListedCorpus, forbidden: Forbidden, *, num_shown: int, progress: Report
    ) -> None:
        self.all_documents = DocumentTally()
        self.before = DocumentTally()
        """Documents that earlier lists leave."""
        self.counts: dict[str, int] = {}
        self._worst: list[tuple[tuple[float, int], dict[str, Any]]] = []
        self._train = train
        self._forbidden = forbidden
        self._num_shown = num_shown
        self._progress = progress

    @property
    def worst(self) -> list[dict[str, Any]]:
        """The removals of the largest shares."""
        return [shown for _, shown in sorted(self._worst, key=lambda pair: pair[0], reverse=True)]

    def removals(self, of_earlier: RemovalFilter) -> Iterator[Removal]:
        """What is to be removed beyond earlier lists, in the order of the input."""
        account = self._train.account

        def unlisted() -> Iterator[Document]:
            for document in self._train.documents("comparing", self._progress):
                reason = of_earlier.reason(self.all_documents.add(document.text))
                if reason is None:
                    self.before.add(document.text)
                    yield document
                else:
                    account.withdraw(reason, document.source, document.row)

        for document, suspicion in self._look_at(unlisted()):
            removal = self._removal(document, suspicion)
            if removal is not None:
                self._count(removal)
                yield removal

    def measure_left(self, removals: Removals) -> _Left:
        """Look again at what the lists leave.

        Refuses: corpus.still-shared, corpus.nothing-left.
        """
        of_lists, left = removals.filter(), _Left()
        documents = (
            document
            for document in self._train.documents("measuring what is left", self._progress)
            if of_lists.reason(document_hash(document.text)) is None
        )
        for document, suspicion in self._look_at(documents):
            if self._removal(document, suspicion) is not None:
                _refuse_shared(document)
            left.documents.add(document.text)
            left.evaluation = max(left.evaluation, _share(suspicion.evaluation))
            left.held_out = max(left.held_out, _share(suspicion.held_out))
        if not left.documents.num_documents:
            raise nothing_left(self.all_documents.num_documents, self.counts)
        return left

    def _look_at(self, documents: Iterable[Document]) -> Iterator[tuple[Document, Suspicion]]:
        batch: list[Document] = []
        num_characters = 0
        for document in documents:
            batch.append(document)
            num_characters += len(document.text)
            if num_characters >= _BATCH_CHARACTERS:
                yield from zip(batch, self._forbidden.look_at(batch), strict=True)
                batch, num_characters = [], 0
        yield from zip(batch, self._forbidden.look_at(batch), strict=True)

    def _removal(self, document: Document, suspicion: Suspicion) -> Removal | None:
        limit = self._forbidden.containment
        if _share(suspicion.evaluation) >= limit:
            reason, match = "contaminated", suspicion.evaluation
        elif suspicion.is_copy:
            reason, match = "duplicate_of_held_out", None
        elif _share(suspicion.held_out) >= limit:
            reason, match = "overlaps_held_out", suspicion.held_out
        else:
            return None
        score = {} if match is None else {"found": match.reference.name, "share": match.share}
        score |= {"renamed": True} if match is not None and match.is_renamed else {}
        digest = document_hash(document.text)
        return Removal(digest, reason, document.source, document.row, score=score)

    def _count(self, removal: Removal) -> None:
        self.counts[removal.reason] = self.counts.get(removal.reason, 0) + 1
        shown = removal.as_dict()
        rank = (shown.get("share", 1.0), -sum(self.counts.values()))
        heapq.heappush(self._worst, (rank, shown))
        if len(self._worst) > self._num_shown:
            heapq.heappop(self._worst)


def _checks(forbidden: Forbidden, counts: dict[str, int], left: _Left) -> list[Check]:
    ngram = NgramCheck(
        rule=f"share of the runs of {forbidden.num_words} words that a document has in common "
        "with the prompt, solution or test of an item, or with a held-out document, without "
        "regard to case, signs and white space and with at most one name changed; licence notices "
        f"and imports do not count; parts of fewer words count whole, from {FEWEST_WORDS} on",
        words=forbidden.num_words,
        containment=forbidden.containment,
        evaluation_sets=forbidden.evaluation_sets,
        num_contaminated=counts.get("contaminated", 0),
        num_overlapping=counts.get("overlaps_held_out", 0),
        largest_containment_left=left.evaluation if forbidden.evaluation_sets else None,
        largest_overlap_left=left.held_out if forbidden.held_out.num_documents else None,
        misses=MISSES,
    )
    if not forbidden.held_out.num_documents:
        return [ngram]
    num_copies = counts.get("duplicate_of_held_out", 0)
    return [ExactCheck(rule=normal_form.RULE, num_removed=num_copies), ngram]


def _share(match: Match | None) -> float:
    return 0.0 if match is None else match.share


def _refuse_shared(document: Document) -> NoReturn:
    raise Refusal(
        "corpus.still-shared",
        document.place,
        found="forbidden text in a document that the removal list leaves",
        expected="none",
        fix="this is a bug in apr; please report it with the input that shows it",
    )


def _refuse_nothing() -> NoReturn:
    raise UsageRefusal(
        "corpus.nothing-to-compare",
        "apr corpus decontaminate",
        found="neither --against nor --held-out",
        expected="evaluation sets or held-out documents",
        fix="name at least one of them",
    )
