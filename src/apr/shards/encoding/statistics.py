"""What the ids of a corpus look like, counted while they pass.

A corpus that is one repeated line, or one that is nearly all unknown tokens, trains to a
record loss. These numbers show it beforehand.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apr.shards.encoding.batch import Batch, BatchIds
from apr.shards.encoding.receipts import Receipt, total
from apr.shards.manifest import Statistics
from apr.tokenizer.tokenizer import Tokenizer

_EXAMPLES = 5
_DECIMALS = 6  # the last bits of a logarithm differ between processors, and the manifest may not


class Tally:
    """Counts over the documents of one task and their ids, separators left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.text_bytes = 0
        self.longest_run = 0
        self.num_with_control_text = 0
        self.control_text_examples: list[str] = []
        self.counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self._control_texts = [
            token.content.encode("utf-8") for token in tokenizer.definition.added_tokens
        ]
        self._needles = _needles(self._control_texts)

    def add(self, batch: Batch, encoded: BatchIds) -> None:
        """Count some documents and their ids."""
        for document, data in zip(batch.documents, batch.data, strict=True):
            self.text_bytes += len(data)
            if self._has_control_text(data):
                self.num_with_control_text += 1
                if len(self.control_text_examples) < _EXAMPLES:
                    self.control_text_examples.append(document.place)
        self.counts += np.bincount(encoded.ids, minlength=len(self.counts))
        self.longest_run = longest_run(encoded, at_least=self.longest_run)

    def _has_control_text(self, data: bytes) -> bool:
        for needle in self._needles:
            # One byte is found ten times as fast as two, and often rules a document out.
            if (
                needle[:1] in data
                and needle in data
                and any(text in data for text in self._control_texts)
            ):
                return True
        return False


def summarize(
    receipts: Sequence[Receipt], counts: NDArray[np.int64], tokenizer: Tokenizer
) -> Statistics:
    """The counts of all tasks as the manifest holds them."""
    num_tokens = int(counts.sum())
    shares = counts[counts > 0] / num_tokens
    entropy_bits = float(-(shares * np.log2(shares)).sum())
    definition = tokenizer.definition
    unk_id = definition.ids[definition.unk_token] if definition.unk_token else None
    num_unknown = 0 if unk_id is None else int(counts[unk_id])
    return Statistics(
        bytes_per_token=round(total(receipts, "text_bytes") / num_tokens, _DECIMALS),
        # A single repeated id has no entropy; without the maximum it would be minus zero.
        unigram_entropy_bits=round(max(0.0, entropy_bits), _DECIMALS),
        longest_run=max(receipt.longest_run for receipt in receipts),
        unk_rate=round(num_unknown / num_tokens, _DECIMALS),
        max_token_id=int(np.flatnonzero(counts)[-1]),
        num_documents_changed_by_normalizer=total(receipts, "num_documents_changed_by_normalizer"),
        num_documents_with_control_text=total(receipts, "num_documents_with_control_text"),
    )


def _needles(texts: Sequence[bytes]) -> list[bytes]:
    """A few byte strings one of which is in every text, so that few searches rule out most data.

    Control texts end alike (`|>`), and the longer what is searched, the faster the search.
    """
    needles: dict[bytes, bytes] = {}
    for text in texts:
        needle = needles.get(text[-2:], text)
        while not text.endswith(needle):
            needle = needle[1:]
        needles[text[-2:]] = needle
    return list(needles.values())


def longest_run(encoded: BatchIds, *, at_least: int) -> int:
    """Most repetitions of one id in a row, within one document; `at_least` when none is longer."""
    ids = encoded.ids
    repeats = np.zeros(len(ids) + 1, dtype=np.bool_)
    np.equal(ids[1:], ids[:-1], out=repeats[1:-1])
    repeats[encoded.offsets] = False
    # A run of k ids is k - 1 repeats side by side.
    places = np.flatnonzero(repeats)
    longest = max(at_least, min(1, len(ids)))
    if not _has_run(places, longest):
        return longest
    breaks = np.flatnonzero(np.diff(places) != 1)
    edges = np.concatenate([[-1], breaks, [len(places) - 1]])
    return int(np.diff(edges).max()) + 1


def _has_run(places: NDArray[np.intp], num_repeats: int) -> bool:
    """Whether so many places follow each other without a gap."""
    if len(places) < num_repeats:
        return False
    spans = places[num_repeats - 1 :] - places[: len(places) - num_repeats + 1]
    return bool((spans == num_repeats - 1).any())
