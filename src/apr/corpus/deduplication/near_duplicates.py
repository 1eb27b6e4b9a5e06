"""Which training documents resemble an earlier one, each pair compared shingle by shingle.

Sketches only say which pairs to compare. A document that resembles none of the documents it is
compared with becomes one that later ones are compared with, so every removed document resembles
the very one that stays, and not merely another that was removed. Recall is a matter of chance,
stated with the result; precision is exact.
"""

import os
from collections import Counter
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.shingles import jaccard

# Files by one generator share bands by the thousand; without these limits each would be compared
# with all the others.
_MOST_COMPARISONS = 64
_MOST_IN_BUCKET = 128


@dataclass(frozen=True)
class Match:
    """An earlier document and how similar it is."""

    document_index: int
    jaccard: float


class Buckets:
    """Which documents agree in a band with another one, and in which bands."""

    def __init__(self, keys: NDArray[np.uint32], document_indices: NDArray[np.int64]) -> None:
        may_match = np.zeros(len(keys), np.bool_)
        for band in range(keys.shape[1]):
            may_match |= _is_shared(keys[:, band])
        self.document_indices = document_indices[may_match]
        """Those that agree with another one somewhere, ascending."""
        self._buckets = np.full((len(self.document_indices), keys.shape[1]), -1, np.int64)
        first_free = 0
        for band in range(keys.shape[1]):
            column = keys[may_match, band]
            _, buckets = np.unique(column, return_inverse=True)
            shared = _is_shared(column)
            self._buckets[shared, band] = buckets[shared] + first_free
            first_free += len(column)

    def of(self, document_index: int) -> list[int]:
        """The buckets that a document shares with another one; none for most."""
        row = int(np.searchsorted(self.document_indices, document_index))
        is_there = row < len(self.document_indices)
        if not is_there or self.document_indices[row] != document_index:
            return []
        return [bucket for bucket in self._buckets[row].tolist() if bucket >= 0]


class NearDuplicates:
    """Compares documents with those that were kept before, in order.

    `spill` is a scratch file for the shingles of kept documents.
    """

    def __init__(
        self,
        buckets: Buckets,
        *,
        jaccard: float,
        spill: IO[bytes],
        most_comparisons: int = _MOST_COMPARISONS,
        most_in_bucket: int = _MOST_IN_BUCKET,
    ) -> None:
        self.num_pairs_compared = 0
        self.num_limited = 0
        """Documents for which some pairs were not compared, because there are too many."""
        self._all_buckets = buckets
        self._jaccard = jaccard
        self._most_comparisons = most_comparisons
        self._most_in_bucket = most_in_bucket
        self._store = _ShingleStore(spill)
        self._kept: dict[int, list[int]] = {}

    def may_match(self, document_index: int) -> bool:
        """Whether the shingles of a document are worth making."""
        return bool(self._all_buckets.of(document_index))

    def match(self, document_index: int, shingles: NDArray[np.uint64]) -> Match | None:
        """The kept document that this one resembles, or None: then this one is kept too."""
        buckets = self._all_buckets.of(document_index)
        found = self._most_similar(buckets, shingles)
        if found is not None and found.jaccard >= self._jaccard:
            return found
        self._keep(document_index, shingles, buckets)
        return None

    def _most_similar(self, buckets: list[int], shingles: NDArray[np.uint64]) -> Match | None:
        """The first that is similar enough, else the most similar; likelier ones first."""
        counts = Counter(index for bucket in buckets for index in self._kept.get(bucket, ()))
        ranked = sorted(counts, key=lambda index: (-counts[index], index))
        self.num_limited += len(ranked) > self._most_comparisons
        best: Match | None = None
        for index in ranked[: self._most_comparisons]:
            sizes = sorted((len(shingles), self._store.num_shingles(index)))
            if sizes[0] < self._jaccard * sizes[1]:
                continue
            self.num_pairs_compared += 1
            found = Match(index, jaccard(shingles, self._store.read(index)))
            if best is None or found.jaccard > best.jaccard:
                best = found
            if best.jaccard >= self._jaccard:
                break
        return best

    def _keep(
        self,
        document_index: int,
        shingles: NDArray[np.uint64],
        buckets: list[int],
    ) -> None:
        self._store.append(document_index, shingles)
        is_limited = False
        for bucket in buckets:
            members = self._kept.setdefault(bucket, [])
            is_limited |= len(members) >= self._most_in_bucket
            if len(members) < self._most_in_bucket:
                members.append(document_index)
        self.num_limited += is_limited


class _ShingleStore:
    """Sets of shingles in a scratch file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0

    def append(self, document_index: int, shingles: NDArray[np.uint64]) -> None:
        self._places[document_index] = (self._end, len(shingles))
        self._file.write(shingles.tobytes())
        self._end += shingles.nbytes

    def num_shingles(self, document_index: int) -> int:
        return self._places[document_index][1]

    def read(self, document_index: int) -> NDArray[np.uint64]:
        start, count = self._places[document_index]
        self._file.flush()
        return np.frombuffer(os.pread(self._file.fileno(), 8 * count, start), np.uint64)


def _is_shared(column: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether each key occurs more than once."""
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    equal = ordered[1:] == ordered[:-1]
    shared = np.zeros(len(column), np.bool_)
    shared[order[1:]] |= equal
    shared[order[:-1]] |= equal
    return shared
