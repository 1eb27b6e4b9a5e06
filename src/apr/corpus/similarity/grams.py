"""Texts as runs of n words: as they are written, and as they are when no name counts.

In the second form a name is replaced by how far back the same name stood last, within the run.
Renaming a variable then changes nothing, which finds the places worth a second look; it says less
than the words themselves, so that it decides nothing alone.
"""

import keyword
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.token_runs import TokenRuns
from apr.corpus.similarity.tokens import Tokens, mix, tokenize

# Words that nobody renames: of programming languages, and the most frequent English ones.
_FIXED_WORDS = " ".join(keyword.kwlist) + (
    " self cls len range int str list dict set tuple bool float print append sorted sum min max abs"
    " enumerate zip map filter isinstance var let const function new this void public private"
    " static switch case default do struct char double long unsigned sizeof typedef include define"
    " null true false the an of to in is are be that it on with as at by this which you can will"
)
_FAR = np.uint64(1 << 32)


@dataclass(frozen=True)
class Grams:
    """The runs of one text in their order."""

    verbatim: NDArray[np.uint64]
    nameless: NDArray[np.uint64]


class Words:
    """The words of some texts, of which runs of several lengths can be taken."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.words = tokenize(texts, words_only=True)
        self._is_fixed = _is_fixed(self.words)
        self._back = np.where(self._is_fixed, _FAR, _distances_back(self.words))

    def grams(self, *, num_words: int) -> Iterator[Grams]:
        """For each text its runs of words; a text of fewer words is one run of its own."""
        runs = TokenRuns(self.words.ends, num_tokens=num_words)
        verbatim, nameless = verbatim_runs(self.words, runs), self._nameless(runs)
        start = 0
        for stop in runs.ends.tolist():
            yield Grams(verbatim[start:stop], nameless[start:stop])
            start = stop

    def names(self) -> NDArray[np.uint64]:
        """The hashes of the names among the words, with repetitions."""
        return self.words.hashes[~self._is_fixed]

    def _nameless(self, runs: TokenRuns) -> NDArray[np.uint64]:
        """One hash per run, of its fixed words and of where its names repeat."""
        literal = runs.lay_out(np.where(self._is_fixed, self.words.hashes, 0).astype(np.uint64))
        back = runs.lay_out(self._back)
        return runs.hash(
            literal[place:] + np.where(back[place:] <= place, back[place:], 0).astype(np.uint64)
            for place in range(runs.num_tokens)
        )


def verbatim_runs(words: Tokens, runs: TokenRuns) -> NDArray[np.uint64]:
    """One hash per run, in order, of its words."""
    written = runs.lay_out(words.hashes)
    return runs.hash(written[place:] for place in range(runs.num_tokens))


def _distances_back(words: Tokens) -> NDArray[np.uint64]:
    """For each word, how many words ago the same one stood last in its text."""
    counts = np.diff(words.ends, prepend=0)
    text_of = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    keys = words.hashes + mix(text_of)
    order = np.argsort(keys, kind="stable")
    repeats = keys[order[1:]] == keys[order[:-1]]
    distances = np.full(len(keys), _FAR, np.uint64)
    distances[order[1:][repeats]] = (order[1:] - order[:-1])[repeats]
    return distances


def _is_fixed(words: Tokens) -> NDArray[np.bool_]:
    """Which words are numbers, or of those that nobody renames."""
    # A few other words share the last bits of a fixed one; they count as fixed in every text.
    return _fixed_table()[words.hashes & np.uint64(0xFFFF)] | (words.first_bytes <= ord("9"))


@cache
def _fixed_table() -> NDArray[np.bool_]:
    table = np.zeros(1 << 16, np.bool_)
    table[tokenize([_FIXED_WORDS], words_only=True).hashes & np.uint64(0xFFFF)] = True
    return table
