"""Rows of tokens, and the order in which those of one shard directory are visited.

The stream of a shard directory is cut into rows of T targets; adjacent rows share one id, so
that each token but the first is a target exactly once per epoch. Rows are visited in the order
of a keyed permutation that can be evaluated at any position, so a resume needs only the step,
and any past or future batch can be rebuilt. What a step reads is in `train.mixture`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    # A step needs batches and no shards: it runs where only torch and numpy are installed.
    from apr.shards.reader import ShardReader

IGNORED_TARGET = -100
_FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Batch:
    """Rows ready for the model; a target of IGNORED_TARGET is not counted.

    `source_indices`, `row_indices` and `document_numbers_BT` lead back to the text.
    """

    input_ids_BT: NDArray[np.int64]
    target_ids_BT: NDArray[np.int64]
    document_numbers_BT: NDArray[np.int64]
    row_indices: tuple[int, ...]
    source_indices: tuple[int, ...] | None = None
    """Which source of a run each row belongs to; None for rows that no run's order chose."""

    @property
    def num_counted_tokens(self) -> int:
        """Targets that count."""
        return int((self.target_ids_BT != IGNORED_TARGET).sum())

    @property
    def num_counted_tokens_by_row(self) -> NDArray[np.int64]:
        """Targets that count in each row, without the rows that only fill the batch up."""
        counts = (self.target_ids_BT != IGNORED_TARGET).sum(axis=1, dtype=np.int64)
        return counts[: len(self.row_indices)]

    def counted_tokens_by_source(self, num_sources: int) -> list[int]:
        """Targets that count, of each source."""
        assert self.source_indices is not None, "these rows were not drawn from sources"
        by_source = np.zeros(num_sources, np.int64)
        np.add.at(by_source, list(self.source_indices), self.num_counted_tokens_by_row)
        return by_source.tolist()

    def split(self, num_parts: int) -> list["Batch"]:
        """Equal micro-batches, in order."""
        size = len(self.row_indices) // num_parts
        return [
            Batch(
                self.input_ids_BT[at : at + size],
                self.target_ids_BT[at : at + size],
                self.document_numbers_BT[at : at + size],
                self.row_indices[at : at + size],
                None if self.source_indices is None else self.source_indices[at : at + size],
            )
            for at in range(0, len(self.row_indices), size)
        ]


@dataclass(frozen=True)
class TokenRows:
    """The tokens [start, stop) of a shard directory as rows of `sequence_length` targets."""

    shards: "ShardReader"
    start: int
    stop: int
    sequence_length: int

    @property
    def num_targets(self) -> int:
        """Tokens that are a target once per epoch: all but the first."""
        return max(0, self.stop - self.start - 1)

    @property
    def num_rows(self) -> int:
        """Rows per epoch; the last may be short, its rest is ignored."""
        return -(-self.num_targets // self.sequence_length)

    def first_token(self, row_index: int) -> int:
        """Where a row begins in the stream; adjacent rows share one token."""
        return self.start + row_index * self.sequence_length

    def visited(self, visits: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        """Which row each visit, from 0, reads: each once per epoch, in each epoch's own order."""
        places = visits.astype(np.uint64)
        epochs = places // np.uint64(self.num_rows)
        result = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = f"{self.shards.manifest_sha256}/{seed}/{int(epoch)}"
            result[here] = permute(places[here] % np.uint64(self.num_rows), self.num_rows, key=key)
        return result

    def batch(self, row_indices: NDArray[np.int64], *, batch_size: int) -> Batch:
        """Rows by index, padded with uncounted rows up to `batch_size`.

        A constant shape keeps compiled kernels valid for the last, ragged batch.
        """
        inputs = np.zeros((batch_size, self.sequence_length), np.int64)
        targets = np.full((batch_size, self.sequence_length), IGNORED_TARGET, np.int64)
        documents = np.full((batch_size, self.sequence_length), -1, np.int64)
        for at, row_index in enumerate(row_indices):
            first = self.first_token(int(row_index))
            last = min(first + self.sequence_length + 1, self.stop)
            ids = self.shards.read(first, last).astype(np.int64)
            count = len(ids) - 1
            inputs[at, :count] = ids[:-1]
            targets[at, :count] = ids[1:]
            documents[at, :count] = self.shards.document_numbers(first, last)[:-1]
        return Batch(inputs, targets, documents, tuple(int(row) for row in row_indices))

    def in_order(self, *, batch_size: int, row_indices: NDArray[np.int64]) -> Iterator[Batch]:
        """The given rows as batches, each row exactly once."""
        for at in range(0, len(row_indices), batch_size):
            yield self.batch(row_indices[at : at + batch_size], batch_size=batch_size)

    def sha256(self, row_indices: NDArray[np.int64]) -> str:
        """Identity of a set of rows: their ids, their document borders, the row length."""
        digest = hashlib.sha256(f"rows of {self.sequence_length}\n".encode())
        for batch in self.in_order(batch_size=64, row_indices=row_indices):
            digest.update(batch.input_ids_BT.astype("<i8").tobytes())
            digest.update(batch.target_ids_BT.astype("<i8").tobytes())
            borders = np.diff(batch.document_numbers_BT, axis=1, prepend=-1) != 0
            digest.update(np.packbits(borders).tobytes())
        return digest.hexdigest()


def permute(places: NDArray[np.uint64], size: int, *, key: str) -> NDArray[np.int64]:
    """Where a keyed permutation of range(`size`) sends each place, in constant memory.

    A balanced Feistel network over the next even power of two; values that land outside
    [0, size) are sent through again until they are inside, which keeps it a bijection.

    Source: Black and Rogaway 2002, cycle walking.
    """
    half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    digest = hashlib.shake_256(key.encode()).digest(8 * _FEISTEL_ROUNDS)
    round_keys = np.frombuffer(digest, "<u8")
    values = places.astype(np.uint64)
    pending = np.ones(len(values), bool)
    while pending.any():
        values[pending] = _feistel(values[pending], half_bits, round_keys)
        pending = values >= size
    return values.astype(np.int64)


def _feistel(
    values: NDArray[np.uint64], half_bits: np.uint64, round_keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    low_mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = values >> half_bits, values & low_mask
    for round_key in round_keys:
        left, right = right, left ^ (_mix(right ^ round_key) & low_mask)
    return (left << half_bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # The finalizer of splitmix64: every input bit reaches every output bit.
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
