"""Yardsticks for a held-out loss: what knows nothing of context, and what knows no Python."""

import gzip
import math
from collections.abc import Iterable

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.train.unigram import count_ids, surprisals_nats
from apr.units import bits_per_byte


def unigram_bits_per_byte(train: ShardReader, val: ShardReader) -> float:
    """Cross-entropy of the held-out tokens under the training part's token frequencies.

    Every id counts one more than it was seen, so that none is impossible.

    Refuses: baseline.no-text.
    """
    num_ids = train.manifest.vocab_size
    surprisals = surprisals_nats(count_ids(train, 0, train.num_tokens, num_ids=num_ids))
    # The first token of the set is nobody's target, for this model as for the trained one.
    held_out = count_ids(val, 1, val.num_tokens, num_ids=num_ids)
    num_targets = int(held_out.sum())
    loss_nats = float((held_out * surprisals).sum()) / num_targets
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
