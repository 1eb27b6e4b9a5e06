"""Which training documents repeat another one, or a held-out one, word for word or nearly.

Of documents that repeat each other the first in the order of the input stays; a held-out document
always stays.
"""

import heapq
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from apr.corpus.deduplication.document_index import DocumentIndex
from apr.corpus.deduplication.near_duplicates import Buckets, Match, NearDuplicates
from apr.corpus.reading.documents import Document, document_hash
from apr.corpus.reading.listed import ListedCorpus
from apr.corpus.removals import Removal
from apr.corpus.similarity.normal_form import normal_form
from apr.corpus.similarity.shingles import shingle
from apr.errors import DamagedFile
from apr.progress import Report


class DuplicateSearch:
    """Reads a corpus once to see what may repeat what, and once to compare.

    `jaccard` is the similarity from which on two documents are near-duplicates; None looks for
    copies only.

    Refuses: corpus.no-rensa, corpus.input-changed, and as ListedCorpus.
    """

    def __init__(
        self,
        train: ListedCorpus,
        held_out: ListedCorpus | None,
        *,
        jaccard: float | None,
        num_shown: int,
        progress: Report,
    ) -> None:
        self.counts: dict[str, int] = {}
        """Removed documents by reason, like the next two complete when `removals` has ended."""
        self.sizes_bytes: dict[str, int] = {}
        """Their text."""
        self.near: NearDuplicates | None = None
        self.largest_jaccard_left: float | None = None
        """To a held-out document, among the training documents that were compared and stay."""
        self._train = train
        self._held_out = held_out
        self._jaccard = jaccard
        self._num_shown = num_shown
        self._worst: list[tuple[tuple[bool, int, int], dict[str, Any]]] = []
        self._progress = progress
        self.index = DocumentIndex.read(
            () if held_out is None else held_out.documents("reading held-out text", progress),
            train.documents("reading training text", progress),
            jaccard=jaccard,
        )

    @property
    def worst(self) -> list[dict[str, Any]]:
        """Removals with their sizes: what repeats held-out text first, then the largest."""
        return [shown for _, shown in sorted(self._worst, key=lambda pair: pair[0], reverse=True)]

    def removals(self, spill: IO[bytes]) -> Iterator[Removal]:
        """Every document that is to be removed, in the order of the input."""
        firsts = self.index.first_copies()
        has_copies = np.bincount(firsts, minlength=len(firsts)) > 1
        to_held_out = self._similar_to_held_out()
        resembled = {match.document_index for match in to_held_out.values()}
        near = self.near = self._compare(firsts, spill)
        places: dict[int, dict[str, Any]] = {}
        matches: dict[int, Match] = {}
        for at, document in enumerate(self._read_again()):
            first = int(firsts[at])
            match = matches.get(first)
            may_match = near is not None and near.may_match(at)
            if first == at and at in to_held_out:
                match = matches[at] = to_held_out[at]
            elif first == at and near is not None and may_match:
                match = near.match(at, shingle([normal_form(document.text)]).set_of(0))
                if match is not None:
                    matches[at] = match
            if first == at and match is None:
                self._measure_left(at)
                if has_copies[at] or may_match or at in resembled:
                    places[at] = _place(document, self._hash(at))
            elif at >= self.index.num_held_out:
                yield self._removal(at, document, first, match, places)

    def _similar_to_held_out(self) -> dict[int, Match]:
        similar = self.index.similar
        if similar is None or self._jaccard is None:
            return {}
        found = similar.to_held_out.items()
        return {at: match for at, match in found if match.jaccard >= self._jaccard}

    def _compare(self, firsts: NDArray[np.int64], spill: IO[bytes]) -> NearDuplicates | None:
        """The search among training documents, but for copies."""
        similar, num_held_out = self.index.similar, self.index.num_held_out
        if similar is None or self._jaccard is None:
            return None
        distinct = np.flatnonzero(firsts == np.arange(len(firsts)))
        distinct = distinct[distinct >= num_held_out]
        keys = similar.keys[distinct - num_held_out]
        return NearDuplicates(Buckets(keys, distinct), jaccard=self._jaccard, spill=spill)

    def _measure_left(self, at: int) -> None:
        match = self.index.similar.to_held_out.get(at) if self.index.similar else None
        if match is not None:
            self.largest_jaccard_left = max(self.largest_jaccard_left or 0.0, match.jaccard)

    def _removal(
        self,
        at: int,
        document: Document,
        first: int,
        match: Match | None,
        places: dict[int, dict[str, Any]],
    ) -> Removal:
        kept = first if match is None else match.document_index
        is_of_held_out = kept < self.index.num_held_out
        reason = f"{'duplicate' if match is None else 'near_duplicate'}"
        reason += "_of_held_out" if is_of_held_out else ""
        removal = Removal(
            self._hash(at),
            reason,
            document.source,
            document.row,
            # The kept copy has the same bytes, so the hash alone would remove it too.
            keep_first=match is None and not is_of_held_out and self._hash(at) == self._hash(kept),
            kept=places[kept],
            score={"jaccard": 1.0 if match is None else round(match.jaccard, 4)},
        )
        size_bytes = int(self.index.sizes_bytes[at])
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.sizes_bytes[reason] = self.sizes_bytes.get(reason, 0) + size_bytes
        shown = removal.as_dict() | {"size_bytes": size_bytes}
        heapq.heappush(self._worst, ((is_of_held_out, size_bytes, -at), shown))
        if len(self._worst) > self._num_shown:
            heapq.heappop(self._worst)
        return removal

    def _read_again(self) -> Iterator[Document]:
        held_out = self._held_out
        sides = chain(
            () if held_out is None else held_out.documents("comparing held-out", self._progress),
            self._train.documents("comparing", self._progress),
        )
        num_read = 0
        for document in sides:
            if num_read == self.index.num_documents:
                self._refuse_changed(document.place)
            if document_hash(document.text) != self._hash(num_read):
                self._refuse_changed(document.place)
            num_read += 1
            yield document
        if num_read != self.index.num_documents:
            self._refuse_changed("the corpus")

    def _refuse_changed(self, where: str) -> None:
        raise DamagedFile(
            "corpus.input-changed",
            where,
            found="another text, or another number of documents, than at the first reading",
            expected=f"{self.index.num_documents} documents, the same at both readings",
            fix="let the files be written to their end, then look for duplicates",
        )

    def _hash(self, at: int) -> bytes:
        return self.index.document_hashes[at].tobytes()


def _place(document: Document, digest: bytes) -> dict[str, Any]:
    row = {} if document.row is None else {"row": document.row}
    return {"source": document.source} | row | {"hash": digest.hex()}
