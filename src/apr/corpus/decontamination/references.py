"""Texts that must not be in the training data, and how much of one a document holds.

A part of a text counts as held when the document has the same run of words, in any layout. A copy
in which one name was changed throughout is found as well: runs that are equal but for their names
tell which name it was changed to, and then the words must be equal again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.corpus.similarity.grams import Grams, Words, verbatim_runs
from apr.corpus.similarity.postings import Postings
from apr.corpus.similarity.token_runs import TokenRuns, distinct
from apr.corpus.similarity.tokens import Tokens

_NAMES_TRIED = 16
_RENAMINGS_TRIED = 32


@dataclass(frozen=True)
class Reference:
    """One text to recognise."""

    name: str
    text: str
    grams: Grams


@dataclass(frozen=True)
class Match:
    """The reference that a document holds most of."""

    reference: Reference
    share: float
    is_renamed: bool


class ReferenceIndex:
    """Finds the references that documents hold, for runs of one length.

    The share of a reference is that of its runs. With `both_ways` it is also that of the
    document's runs which are the reference's, if the document has `min_runs` of them: then a
    document that is a part of a reference is found too.
    """

    def __init__(
        self,
        references: Sequence[Reference],
        *,
        num_words: int,
        threshold: float,
        both_ways: bool = False,
        min_runs: int = 1,
    ) -> None:
        self.num_words = num_words
        self._references = references
        self._threshold = threshold
        self._both_ways = both_ways
        self._min_runs = min_runs
        self._verbatim = Postings([each.grams.verbatim for each in references])
        self._nameless = Postings([each.grams.nameless for each in references])

    @property
    def num_references(self) -> int:
        """How many there are to find."""
        return len(self._references)

    def best(self, text: str, grams: Grams) -> Match | None:
        """The reference this document holds most of; None when it shares no run with any."""
        if not self._references:
            return None
        shares = self._shares(self._verbatim, grams.verbatim)
        best = int(shares.argmax())
        found = Match(self._references[best], float(shares[best]), is_renamed=False)
        if found.share < self._threshold:
            renamed = self._best_renamed(text, grams)
            if renamed is not None and renamed.share > found.share:
                return renamed
        return found if found.share > 0 else None

    def _shares(self, postings: Postings, runs: NDArray[np.uint64]) -> NDArray[np.float64]:
        counts = postings.count(runs)
        shares = counts / np.maximum(postings.sizes, 1)
        if self._both_ways and counts.any():
            num_runs = len(distinct(runs))
            if num_runs >= self._min_runs:
                shares = np.maximum(shares, counts / num_runs)
        return shares

    def _best_renamed(self, text: str, grams: Grams) -> Match | None:
        shares = self._shares(self._nameless, grams.nameless)
        likely = np.flatnonzero(shares >= self._threshold)
        likely = likely[np.argsort(-shares[likely], kind="stable")][:_RENAMINGS_TRIED]
        if not len(likely):
            return None
        document = _Placed(text, self.num_words)
        best: Match | None = None
        for index in likely.tolist():
            chosen = self._references[int(index)]
            reference = _Placed(chosen.text, self.num_words)
            # But for the changed name the words must be there, or the runs cannot be.
            if reference.share_of_words(document) < self._threshold:
                continue
            share = self._share_after_renaming(reference, document)
            if best is None or share > best.share:
                best = Match(chosen, share, is_renamed=True)
        return best

    def _share_after_renaming(self, reference: "_Placed", document: "_Placed") -> float:
        """The share of a reference when one of its names is what the document has there."""
        best = 0.0
        in_document = distinct(document.verbatim)
        for name, other in reference.renamings(document):
            renamed = distinct(reference.rename(name, other))
            num_shared = int(np.isin(renamed, in_document, assume_unique=True).sum())
            share = num_shared / len(renamed)
            if self._both_ways and len(in_document) >= self._min_runs:
                share = max(share, num_shared / len(in_document))
            best = max(best, share)
        return best


class _Placed:
    """The words of one text with the runs in their order."""

    def __init__(self, text: str, num_words: int) -> None:
        words = Words([text])
        self.words = words.words
        self._names = words.names()
        self._runs = TokenRuns(self.words.ends, num_tokens=num_words)
        (grams,) = words.grams(num_words=num_words)
        self.verbatim, self.nameless = grams.verbatim, grams.nameless

    def share_of_words(self, other: "_Placed") -> float:
        """Distinct words of both and one more, over those of the text that has fewer."""
        here, there = distinct(self.words.hashes), distinct(other.words.hashes)
        num_shared = len(np.intersect1d(here, there, assume_unique=True))
        return (num_shared + 1) / min(len(here), len(there))

    def renamings(self, document: "_Placed") -> list[tuple[np.uint64, np.uint64]]:
        """For the most frequent names here, what most often stands in their place there."""
        order = np.argsort(document.nameless, kind="stable")
        at = np.searchsorted(document.nameless[order], self.nameless)
        starts = order[np.minimum(at, len(order) - 1)]
        is_found = document.nameless[starts] == self.nameless
        names, counts = np.unique(self._names, return_counts=True)
        found: list[tuple[np.uint64, np.uint64]] = []
        for name in names[np.argsort(-counts, kind="stable")][:_NAMES_TRIED]:
            places = np.flatnonzero(self.words.hashes == name)
            runs = np.clip(places - self._runs.num_tokens // 2, 0, len(self.nameless) - 1)
            there = (starts[runs] + places - runs)[is_found[runs]]
            others = document.words.hashes[there[there < len(document.words.hashes)]]
            others, frequencies = np.unique(others[others != name], return_counts=True)
            if len(others):
                found.append((name, others[frequencies.argmax()]))
        return found

    def rename(self, name: np.uint64, other: np.uint64) -> NDArray[np.uint64]:
        """The runs as they would be with another name."""
        hashes = np.where(self.words.hashes == name, other, self.words.hashes)
        renamed = Tokens(hashes, self.words.ends, self.words.first_bytes)
        return verbatim_runs(renamed, self._runs)


def make_reference(name: str, text: str, *, num_words: int) -> Reference:
    """A reference with its runs."""
    (grams,) = Words([text]).grams(num_words=num_words)
    return Reference(name, text, grams)
