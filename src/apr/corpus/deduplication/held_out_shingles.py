"""The held-out documents as sets of shingles, each compared with every training document.

A document of similarity J has at least the share J of its shingles in common with one held-out
document, and so with all of them together. Few have that; for those the similarity to each
held-out document is counted, so that none that is similar enough is missed.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from apr.corpus.deduplication.near_duplicates import Match
from apr.corpus.similarity.postings import Postings
from apr.corpus.similarity.shingles import Shingles
from apr.corpus.similarity.token_runs import distinct

_ROUNDING = 1e-9


class HeldOutShingles:
    """Finds the held-out document that a text resembles most; documents count from 0."""

    def __init__(self, sets: Sequence[NDArray[np.uint64]], *, jaccard: float) -> None:
        self._postings = Postings(sets)
        self._jaccard = jaccard

    def matches(self, shingles: Shingles) -> Iterator[tuple[int, Match]]:
        """The texts that could be similar enough, each with the most similar held-out document.

        Whether a match is similar enough is for the caller to see; of no other text any is.
        """
        start = 0
        for text_index, stop in enumerate(shingles.ends.tolist()):
            match = self._most_similar(shingles.hashes[start:stop])
            if match is not None:
                yield text_index, match
            start = stop

    def _most_similar(self, hashes: NDArray[np.uint64]) -> Match | None:
        may_know = self._postings.may_know(hashes)
        likely = distinct(hashes[may_know])
        # So many that are on neither side are too many; the first ones tell for most texts.
        limit = len(likely) * (1 / self._jaccard - 1) + _ROUNDING
        unknown = hashes[~may_know]
        if len(unknown) > limit and len(distinct(unknown[: 2 * int(limit) + 16])) > limit:
            return None
        rows = self._postings.rows(likely)
        size = len(likely) + len(distinct(unknown))
        if not len(rows) or len(rows) < self._jaccard * size - _ROUNDING:
            return None
        shared = self._postings.count_rows(rows)
        similarities = shared / (size + self._postings.sizes - shared)
        best = int(similarities.argmax())
        return Match(best, float(similarities[best]))
