"""Texts as sets of shingles: what two texts share of their runs of five tokens.

Signs count as tokens, because in code `a + b` and `a - b` are different things to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.token_runs import TokenRuns, distinct
from apr.corpus.similarity.tokens import tokenize

SHINGLE_TOKENS = 5


@dataclass(frozen=True)
class Shingles:
    """The shingles of some texts, one after another, repetitions included."""

    hashes: NDArray[np.uint64]
    ends: NDArray[np.int64]
    """Where the shingles of each text end."""

    def set_of(self, text_index: int) -> NDArray[np.uint64]:
        """The distinct shingles of one text, sorted."""
        start = int(self.ends[text_index - 1]) if text_index else 0
        return distinct(self.hashes[start : int(self.ends[text_index])])


def shingle(texts: Sequence[str]) -> Shingles:
    """Every run of five tokens of each text, or the whole of a text that has fewer."""
    tokens = tokenize(texts)
    runs = TokenRuns(tokens.ends, num_tokens=SHINGLE_TOKENS)
    laid_out = runs.lay_out(tokens.hashes)
    hashes = runs.hash(laid_out[place:] for place in range(SHINGLE_TOKENS))
    return Shingles(hashes, runs.ends)


def jaccard(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """Shared over all elements of two sets, each sorted and without repetition."""
    both = np.concatenate([one, other])
    both.sort()
    num_shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return num_shared / max(1, len(both) - num_shared)
