"""Runs of n neighbouring tokens, each within one text, for many texts at once."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.tokens import mix

_FACTOR = 0x9E3779B97F4A7C15


class TokenRuns:
    """Where the runs of `num_tokens` tokens lie in some texts, laid out with gaps between them.

    A text of fewer tokens is one run as a whole, which reads into the gap after it.
    """

    def __init__(self, ends: NDArray[np.int64], *, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        counts = np.diff(ends, prepend=0)
        text_of = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(text_of))
        self._laid_out = places + text_of * (num_tokens - 1)
        self._size = len(text_of) + len(counts) * (num_tokens - 1)
        last_starts = np.maximum(counts - num_tokens, 0)
        starts = places - (ends - counts)[text_of] <= last_starts[text_of]
        self.starts = self._laid_out[starts]
        """The first token of each run, among the tokens laid out."""
        self.ends = np.cumsum(np.where(counts > 0, last_starts + 1, 0))
        """Where the runs of each text end."""

    def lay_out(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """One value per token, with zeros in the gaps."""
        result = np.zeros(self._size, np.uint64)
        result[self._laid_out] = values
        return result

    def hash(self, columns: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
        """One hash per run, from what stands at its first, second and each other place.

        `columns` holds, for each place in a run, the value there for a run that starts at each
        token laid out.
        """
        total = np.zeros(self._size, np.uint64)
        factor = 1
        for column in columns:
            factor = factor * _FACTOR % (1 << 64)
            total[: len(column)] += column * np.uint64(factor)
        return mix(total[self.starts])


def distinct(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The distinct values, sorted; on hashes several times as fast as numpy.unique."""
    ordered = np.sort(hashes)
    is_new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]
