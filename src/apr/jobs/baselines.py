"""Yardsticks for a held-out loss: what knows nothing of context, and what knows no Python."""

import gzip
import math
from collections.abc import Iterable

import numpy as np

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.units import bits_per_byte

_CHUNK_TOKENS = 1 << 22


def unigram_bits_per_byte(train: ShardReader, val: ShardReader) -> float:
    """Cross-entropy of the held-out tokens under the training part's token frequencies.

    Every id counts one more than it was seen, so that none is impossible.

    Refuses: baseline.no-text.
    """
    rows = train.manifest.vocab_size
    counts = _counts(train, rows).astype(np.float64) + 1.0
    log_probabilities = np.log(counts / counts.sum())
    # The first token of the set is nobody's target, for this model as for the trained one.
    held_out = _counts(val, rows)
    held_out[int(val.read(0, 1)[0])] -= 1
    num_targets = int(held_out.sum())
    loss_nats = float(-(held_out * log_probabilities).sum()) / num_targets
    bits = bits_per_byte(
        loss_nats=loss_nats, num_tokens=num_targets, text_bytes=val.manifest.text_bytes
    )
    if bits is None or not math.isfinite(bits):
        raise Refusal(
            "baseline.no-text",
            val.directory,
            found="no held-out text",
            expected="some",
            fix="encode a larger held-out corpus",
        )
    return bits


def gzip_bits_per_byte(texts: Iterable[str]) -> float:
    """What `gzip -9` makes of each document on its own, as the model sees them."""
    compressed_bytes = text_bytes = 0
    for text in texts:
        data = text.encode("utf-8")
        compressed_bytes += len(gzip.compress(data, 9, mtime=0))
        text_bytes += len(data)
    return compressed_bytes * 8 / text_bytes


def _counts(shards: ShardReader, num_ids: int) -> np.ndarray:
    counts = np.zeros(num_ids, np.int64)
    for at in range(0, shards.num_tokens, _CHUNK_TOKENS):
        ids = shards.read(at, min(at + _CHUNK_TOKENS, shards.num_tokens))
        counts += np.bincount(ids, minlength=num_ids)
    return counts
