"""What the ids of a corpus look like, counted while they pass.

A corpus that is one repeated line, or one that is nearly all unknown tokens, trains to a
record loss. These numbers show it beforehand.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apr.corpus.documents import Document
from apr.shards.manifest import Statistics
from apr.tokenizer.tokenizer import Tokenizer

_EXAMPLES = 5
_DECIMALS = 6  # the last bits of a logarithm differ between processors, and the manifest may not


class Tally:
    """Counts over documents and their ids, separators left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.text_bytes = 0
        self.control_text_examples: list[str] = []
        definition = tokenizer.definition
        self._unk_id = definition.ids[definition.unk_token] if definition.unk_token else None
        self._control_texts = [token.content for token in definition.added_tokens]
        self._num_with_control_text = 0
        self._counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self._longest_run = 0

    def add(self, documents: Sequence[Document], batch: Sequence[NDArray[np.uint32]]) -> None:
        """Count some documents and their ids."""
        for document in documents:
            self.text_bytes += len(document.text.encode("utf-8"))
            if any(text in document.text for text in self._control_texts):
                self._num_with_control_text += 1
                if len(self.control_text_examples) < _EXAMPLES:
                    self.control_text_examples.append(document.place)
        ids = np.concatenate(batch)
        self._counts += np.bincount(ids, minlength=len(self._counts))
        self._longest_run = max(self._longest_run, _longest_run(ids, [len(part) for part in batch]))

    def statistics(self, num_documents_changed_by_normalizer: int) -> Statistics:
        """The counts as the manifest holds them."""
        num_tokens = int(self._counts.sum())
        shares = self._counts[self._counts > 0] / num_tokens
        entropy_bits = float(-(shares * np.log2(shares)).sum())
        num_unknown = 0 if self._unk_id is None else int(self._counts[self._unk_id])
        return Statistics(
            bytes_per_token=round(self.text_bytes / num_tokens, _DECIMALS),
            # A single repeated id has no entropy; without the maximum it would be minus zero.
            unigram_entropy_bits=round(max(0.0, entropy_bits), _DECIMALS),
            longest_run=self._longest_run,
            unk_rate=round(num_unknown / num_tokens, _DECIMALS),
            max_token_id=int(np.flatnonzero(self._counts)[-1]),
            num_documents_changed_by_normalizer=num_documents_changed_by_normalizer,
            num_documents_with_control_text=self._num_with_control_text,
        )


def _longest_run(ids: NDArray[np.uint32], lengths: list[int]) -> int:
    """Most repetitions of one id in a row, within one document."""
    starts_run = np.ones(len(ids) + 1, dtype=np.bool_)
    np.not_equal(ids[1:], ids[:-1], out=starts_run[1:-1])
    starts_run[np.cumsum([0, *lengths])] = True
    return int(np.diff(np.flatnonzero(starts_run)).max(initial=0))
