"""Which tokens are in which batch: a pure function of the data, the seed and the step.

The stream of a shard directory is cut into rows of T targets; adjacent rows share one id, so
that each token but the first is a target exactly once per epoch. Rows are visited in the order
of a keyed permutation that can be evaluated at any position, so a resume needs only the step,
and any past or future batch can be rebuilt.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal
from apr.shards.reader import ShardReader

IGNORED_TARGET = -100
_FEISTEL_ROUNDS = 6


@dataclass(frozen=True)
class Batch:
    """Rows ready for the model; a target of IGNORED_TARGET is not counted.

    `row_indices` and `document_numbers_BT` lead back to the text.
    """

    input_ids_BT: NDArray[np.int64]
    target_ids_BT: NDArray[np.int64]
    document_numbers_BT: NDArray[np.int64]
    row_indices: tuple[int, ...]

    @property
    def num_counted_tokens(self) -> int:
        """Targets that count."""
        return int((self.target_ids_BT != IGNORED_TARGET).sum())

    @property
    def num_counted_tokens_by_row(self) -> NDArray[np.int64]:
        """Targets that count in each row, without the rows that only fill the batch up."""
        counts = (self.target_ids_BT != IGNORED_TARGET).sum(axis=1, dtype=np.int64)
        return counts[: len(self.row_indices)]

    def split(self, num_parts: int) -> list["Batch"]:
        """Equal micro-batches, in order."""
        size = len(self.row_indices) // num_parts
        return [
            Batch(
                self.input_ids_BT[at : at + size],
                self.target_ids_BT[at : at + size],
                self.document_numbers_BT[at : at + size],
                self.row_indices[at : at + size],
            )
            for at in range(0, len(self.row_indices), size)
        ]


@dataclass(frozen=True)
class TokenRows:
    """The tokens [start, stop) of a shard directory as rows of `sequence_length` targets."""

    shards: ShardReader
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


@dataclass(frozen=True)
class BatchOrder:
    """Rows of every training batch, by step."""

    rows: TokenRows
    batch_size: int
    seed: int

    def row_indices(self, step: int) -> NDArray[np.int64]:
        """Rows of optimizer step `step` (the first is 1), wrapping into further epochs."""
        first = (step - 1) * self.batch_size
        places = np.arange(first, first + self.batch_size, dtype=np.uint64)
        num_rows = self.rows.num_rows
        epochs = places // np.uint64(num_rows)
        result = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = f"{self.rows.shards.manifest_sha256}/{self.seed}/{int(epoch)}"
            result[here] = permute(places[here] % np.uint64(num_rows), num_rows, key=key)
        return result

    def batch(self, step: int) -> Batch:
        """The batch of optimizer step `step`."""
        return self.rows.batch(self.row_indices(step), batch_size=self.batch_size)


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


@dataclass(frozen=True)
class DataPlan:
    """Which tokens train and which are held out."""

    train: TokenRows
    val: TokenRows
    val_source: str


def plan_data(
    train: ShardReader, val: ShardReader | None, *, sequence_length: int, batch_size: int
) -> DataPlan:
    """Lay rows over the data; without held-out shards, set the first documents aside whole.

    The reserve is the documents that hold the first 16 batches; training never reads them.

    Refuses: preflight.val-empty (FALSIFY-PRETRAIN-VAL-SHARD-003) when nothing would be left.
    """
    if val is not None:
        return DataPlan(
            TokenRows(train, 0, train.num_tokens, sequence_length),
            TokenRows(val, 0, val.num_tokens, sequence_length),
            "given",
        )
    wanted = 16 * batch_size * sequence_length + 1
    ends = train.document_ends
    border = int(ends[min(np.searchsorted(ends, wanted), len(ends) - 1)])
    if train.num_tokens - border < sequence_length + 1:
        raise Refusal(
            "preflight.val-empty",
            train.directory,
            found=f"{train.num_tokens} tokens, {border} of them in the documents to set aside",
            expected=f"{wanted} tokens to hold out and more to train on",
            fix="encode a held-out corpus and pass it with --val-shard",
            upstream_id="FALSIFY-PRETRAIN-VAL-SHARD-003",
        )
    return DataPlan(
        TokenRows(train, border, train.num_tokens, sequence_length),
        TokenRows(train, 0, border, sequence_length),
        "reserved",
    )
