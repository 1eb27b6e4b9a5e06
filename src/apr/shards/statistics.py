"""What the ids of a corpus look like, counted while they pass.

A corpus that is one repeated line, or one that is nearly all unknown tokens, trains to a
record loss. These numbers show it beforehand.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apr.shards.manifest import Statistics
from apr.tokenizer.tokenizer import Tokenizer

_DECIMALS = 6  # the last bits of a logarithm differ between processors, and the manifest may not


class Tally:
    """Counts over the ids of documents, separators left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        unk_token = tokenizer.definition.unk_token
        self._unk_id = tokenizer.definition.ids.get(unk_token) if unk_token else None
        self._counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self._longest_run = 0

    def add(self, batch: Sequence[NDArray[np.uint32]]) -> None:
        """Count the ids of some documents."""
        ids = np.concatenate(batch)
        self._counts += np.bincount(ids, minlength=len(self._counts))
        starts_run = np.ones(len(ids) + 1, dtype=np.bool_)
        np.not_equal(ids[1:], ids[:-1], out=starts_run[1:-1])
        document_starts = np.cumsum([0, *map(len, batch)])
        starts_run[document_starts] = True
        longest = int(np.diff(np.flatnonzero(starts_run)).max(initial=0))
        self._longest_run = max(self._longest_run, longest)

    def statistics(self, *, text_bytes: int, num_changed_by_normalizer: int) -> Statistics:
        """The counts as the manifest holds them."""
        num_tokens = int(self._counts.sum())
        shares = self._counts[self._counts > 0] / num_tokens
        entropy_bits = float(-(shares * np.log2(shares)).sum())
        num_unknown = 0 if self._unk_id is None else int(self._counts[self._unk_id])
        return Statistics(
            bytes_per_token=round(text_bytes / num_tokens, _DECIMALS),
            # A single repeated id has no entropy; without the maximum it would be minus zero.
            unigram_entropy_bits=round(max(0.0, entropy_bits), _DECIMALS),
            longest_run=self._longest_run,
            unk_rate=round(num_unknown / num_tokens, _DECIMALS),
            max_token_id=int(np.flatnonzero(self._counts)[-1]),
            num_documents_changed_by_normalizer=num_changed_by_normalizer,
        )
