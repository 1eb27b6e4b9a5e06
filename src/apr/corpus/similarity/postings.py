"""Which of some sets each hash is in, for counting what a text shares with all of them at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.token_runs import distinct

# Entries of the table that says at once that a hash is in no set, for each hash in one.
_TABLE_FACTOR = 8
_MOST_TABLE_BITS = 26
_MOST_POSTINGS_AT_ONCE = 1 << 20


class Postings:
    """An inverted index of sets of hashes, some twenty bytes per element and a table."""

    def __init__(self, sets_with_repetitions: Sequence[NDArray[np.uint64]]) -> None:
        sets = [distinct(each) for each in sets_with_repetitions]
        self.sizes = np.array([len(each) for each in sets], np.int64)
        """Distinct hashes of each set."""
        every = np.concatenate([np.empty(0, np.uint64), *sets])
        order = np.argsort(every, kind="stable")
        self._owners = np.repeat(np.arange(len(sets), dtype=np.int32), self.sizes)[order]
        self._keys, firsts = np.unique(every[order], return_index=True)
        self._firsts = np.append(firsts, len(every))
        bits = int(_TABLE_FACTOR * max(1, len(self._keys))).bit_length()
        bits = min(max(8, bits), _MOST_TABLE_BITS)
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[self._keys >> self._shift] = True

    def may_know(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """For each hash, false where no set has it; true for a few that none has, too."""
        return self._table[hashes >> self._shift]

    def rows(self, hashes: NDArray[np.uint64]) -> NDArray[np.intp]:
        """The distinct ones of some hashes that are in any set, as `count_rows` takes them."""
        likely = distinct(hashes[self.may_know(hashes)])
        if not len(likely) or not len(self._keys):
            return np.empty(0, np.intp)
        at = np.minimum(np.searchsorted(self._keys, likely), len(self._keys) - 1)
        return at[self._keys[at] == likely]

    def count_rows(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """How many of these each set has."""
        counts = np.zeros(len(self.sizes), np.int64)
        lengths = self._firsts[rows + 1] - self._firsts[rows]
        ends = np.cumsum(lengths)
        start = 0
        while start < len(rows):
            # A hash that most sets have comes with as many postings as there are sets.
            limit = (ends[start - 1] if start else 0) + _MOST_POSTINGS_AT_ONCE
            stop = max(start + 1, int(np.searchsorted(ends, limit, side="right")))
            some = lengths[start:stop]
            before = np.cumsum(some) - some
            places = np.repeat(self._firsts[rows[start:stop]] - before, some)
            places += np.arange(len(places))
            counts += np.bincount(self._owners[places], minlength=len(counts))
            start = stop
        return counts

    def count(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """How many distinct ones of these hashes each set has."""
        return self.count_rows(self.rows(hashes))
