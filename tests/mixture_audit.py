"""Shards whose tokens are numbered, and an audit of what a mixture reads of them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tests.shard_files import edit_manifest, encode, rewrite_shard

from apr.shards.reader import ShardReader
from apr.train.batches import IGNORED_TARGET, TokenRows
from apr.train.mixture import BatchOrder

DOCUMENT_TOKENS = 11
SEQUENCE_LENGTH = 8


def numbered_source(
    directory: Path, num_documents: int, *, first: int, num_shards: int = 2
) -> ShardReader:
    """Shards in which every token is its own number from `first` on, over all sources."""
    directory.mkdir(parents=True)
    output, manifest = encode(
        directory,
        ["x" * DOCUMENT_TOKENS] * num_documents,
        eos_policy="none",
        shard_tokens=num_documents * DOCUMENT_TOKENS // num_shards,
    )
    edit_manifest(output, vocab_size=1 << 20, eos_token=None, eos_token_id=None)
    for shard_index, shard in enumerate(manifest.shards):
        rewrite_shard(output, shard_index, range(first, first + shard.num_tokens))
        first += shard.num_tokens
    return ShardReader.open(output)


def whole(shards: ShardReader, kind: type[TokenRows] = TokenRows) -> TokenRows:
    return kind(shards, 0, shards.num_tokens, SEQUENCE_LENGTH)


def audit(
    order: BatchOrder, shards: Sequence[ShardReader], shares: Sequence[Fraction], *, num_steps: int
) -> set[str]:
    """What is wrong with the first steps, told from the ids alone: nothing, of an honest order.

    `shares` are those that were asked for, of the tokens. A source is known by the numbers of its
    tokens, so that neither the order's own word nor its arithmetic is taken.
    """
    read, sources = _read(order, shards, num_steps=num_steps)
    problems: set[str] = set()
    for at, reader in enumerate(shards):
        targets = [ids for ids, source in zip(read, sources, strict=True) if source == at]
        if not targets:
            problems.add("a source is never read")
            continue
        problems |= _epochs(np.concatenate(targets), reader)
    if np.abs(_counts(sources, len(shards)) - _asked(shards, shares, len(sources))).max() > bound(
        len(shards)
    ):
        problems.add("shares are not those asked for")
    return problems


def bound(num_sources: int) -> float:
    """Rows by which a count may differ from its share: 1/2 for two sources, at any place."""
    return 0.5 + max(0, num_sources - 2) / 2 + 1e-9


def _read(
    order: BatchOrder, shards: Sequence[ShardReader], *, num_steps: int
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """The targets of every row in order, and whose they are."""
    borders = np.cumsum([reader.num_tokens for reader in shards])
    read: list[NDArray[np.int64]] = []
    for step in range(1, num_steps + 1):
        batch = order.batch(step)
        read += [row[row != IGNORED_TARGET] for row in batch.target_ids_BT]
        named = np.searchsorted(borders, batch.target_ids_BT[:, 0], side="right")
        assert batch.source_indices == tuple(named.tolist())
    return read, np.searchsorted(borders, [row[0] for row in read], side="right").astype(np.int64)


def _counts(sources: NDArray[np.int64], num_sources: int) -> NDArray[np.float64]:
    """Rows of each source after every row."""
    return np.cumsum(sources[:, None] == np.arange(num_sources), axis=0).astype(np.float64)


def _asked(
    shards: Sequence[ShardReader], shares: Sequence[Fraction], num_rows: int
) -> NDArray[np.float64]:
    """Rows of each source that its share of the tokens comes to, after every row."""
    targets = np.array([reader.num_tokens - 1 for reader in shards])
    tokens_per_row = targets / -(-targets // SEQUENCE_LENGTH)
    rows = np.array([float(share) for share in shares]) / tokens_per_row
    return np.arange(1, num_rows + 1)[:, None] * (rows / rows.sum())


def _epochs(targets: NDArray[np.int64], reader: ShardReader) -> set[str]:
    """Every target once before any is read again, and never twice in one order."""
    problems: set[str] = set()
    first = int(reader.read(0, 1)[0])
    size = reader.num_tokens - 1
    epochs = [targets[at : at + size] for at in range(0, len(targets), size)]
    for epoch in epochs:
        hits = np.bincount(epoch - first, minlength=size + 1)
        expected_zero = hits[0] == 0 and hits.max() == 1
        if not expected_zero or (len(epoch) == size and hits[1:].min() != 1):
            problems.add("a token is read twice before another is read once")
    if len(epochs) > 2 and np.array_equal(epochs[0], epochs[1]):
        problems.add("two epochs in one order")
    return problems
