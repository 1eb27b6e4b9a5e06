"""F19: the loader reads part of the corpus, or some of it twice.

An audit over one epoch: every token but the first is a target exactly once, however the data is
cut into shards and however each batch is dealt out to ranks. The audit itself must see a loader
that drops what others dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.shard_files import edit_manifest, encode, manifest_value, rewrite_shard

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.train.batches import IGNORED_TARGET, TokenRows
from apr.train.mixture import BatchOrder, mix

NUM_DOCUMENTS = 48
DOCUMENT_TOKENS = 50
BATCH_SIZE = 24
RANKS = (1, 2, 3, 8)


def numbered_shards(directory: Path, num_shards: int) -> Path:
    """Shards in which every token is its own number, so that none can stand for another."""
    texts = ["x" * DOCUMENT_TOKENS] * NUM_DOCUMENTS
    shard_tokens = NUM_DOCUMENTS * DOCUMENT_TOKENS // num_shards
    output, manifest = encode(directory, texts, eos_policy="none", shard_tokens=shard_tokens)
    assert manifest.shard_count == num_shards
    edit_manifest(output, vocab_size=1 << 20, eos_token=None, eos_token_id=None)
    first = 0
    for shard_index, shard in enumerate(manifest.shards):
        rewrite_shard(output, shard_index, range(first, first + shard.num_tokens))
        first += shard.num_tokens
    return output


def targets_of_ranks(order: BatchOrder, num_ranks: int, *, epoch: int = 0) -> NDArray[np.int64]:
    """How often each token is a target in one epoch, over all ranks."""
    (rows,) = order.mixture.sources
    num_rows = rows.num_rows
    hits = np.zeros(rows.shards.num_tokens, np.int64)
    first_visit, last_visit = epoch * num_rows, (epoch + 1) * num_rows
    for step in range(1 + first_visit // BATCH_SIZE, 2 + (last_visit - 1) // BATCH_SIZE):
        visit = (step - 1) * BATCH_SIZE
        for rank in range(num_ranks):
            part = order.batch(step, part=rank, num_parts=num_ranks)
            for targets in part.target_ids_BT:
                if first_visit <= visit < last_visit:
                    np.add.at(hits, targets[targets != IGNORED_TARGET], 1)
                visit += 1
    return hits


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4, 8])
def test_every_token_is_a_target_once_whatever_the_shards_and_ranks(
    tmp_path: Path, num_shards: int
) -> None:
    shards = ShardReader.open(numbered_shards(tmp_path, num_shards))
    total = NUM_DOCUMENTS * DOCUMENT_TOKENS
    assert shards.read(0, total).tolist() == list(range(total))
    for length in (7, 64):
        order = BatchOrder(mix([TokenRows(shards, 0, total, length)], [None]), BATCH_SIZE, seed=3)
        for num_ranks in RANKS:
            for epoch in (0, 1):
                hits = targets_of_ranks(order, num_ranks, epoch=epoch)
                assert hits[0] == 0
                assert (hits[1:] == 1).all(), (length, num_ranks, epoch)


def test_the_cut_into_shards_changes_no_row(tmp_path: Path) -> None:
    rows: list[NDArray[np.int64]] = []
    for num_shards in (1, 3, 8):
        (tmp_path / str(num_shards)).mkdir()
        shards = ShardReader.open(numbered_shards(tmp_path / str(num_shards), num_shards))
        every = TokenRows(shards, 0, shards.num_tokens, 33)
        rows.append(every.batch(np.arange(every.num_rows), batch_size=every.num_rows).input_ids_BT)
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


@dataclass(frozen=True)
class DropsTheTail(TokenRows):
    """A loader that leaves the last, short row out."""

    @property
    def num_rows(self) -> int:
        return self.num_targets // self.sequence_length


@dataclass(frozen=True)
class NeverJoinsRows(TokenRows):
    """A loader whose rows share no token, so that every row's first is no target."""

    @property
    def num_rows(self) -> int:
        return (self.stop - self.start) // (self.sequence_length + 1)

    def first_token(self, row_index: int) -> int:
        return self.start + row_index * (self.sequence_length + 1)


@dataclass(frozen=True)
class SkipsAShard(TokenRows):
    """A loader that reads one shard in the place of another."""

    def first_token(self, row_index: int) -> int:
        first = super().first_token(row_index)
        shard_tokens = self.shards.manifest.shards[0].num_tokens
        return first if first >= shard_tokens else first + shard_tokens


@pytest.mark.parametrize("planted", [DropsTheTail, NeverJoinsRows, SkipsAShard])
def test_the_audit_sees_a_loader_that_loses_tokens(
    tmp_path: Path, planted: type[TokenRows]
) -> None:
    shards = ShardReader.open(numbered_shards(tmp_path, 3))

    def missing(kind: type[TokenRows]) -> int:
        rows = kind(shards, 0, shards.num_tokens, 64)
        order = BatchOrder(mix([rows], [None]), BATCH_SIZE, seed=3)
        return int((targets_of_ranks(order, 1)[1:] != 1).sum())

    assert missing(TokenRows) == 0
    assert missing(planted) > 0


def test_the_tail_that_fills_no_row_is_padded_and_not_counted(tmp_path: Path) -> None:
    shards = ShardReader.open(numbered_shards(tmp_path, 2))
    rows = TokenRows(shards, 0, shards.num_tokens, 64)
    last = rows.batch(np.array([rows.num_rows - 1]), batch_size=1)
    tail = (shards.num_tokens - 1) % 64
    assert 0 < last.num_counted_tokens == tail < 64
    assert int(last.target_ids_BT.max()) == shards.num_tokens - 1


@pytest.mark.parametrize("left_out", [0, 1, 2])
def test_a_manifest_that_names_one_shard_less_is_refused(tmp_path: Path, left_out: int) -> None:
    output = numbered_shards(tmp_path, 3)
    shards = [shard for at, shard in enumerate(manifest_value(output)["shards"]) if at != left_out]
    _seal(output, shards)
    with pytest.raises(Refusal) as refused:
        ShardReader.open(output)
    named_wrong = left_out < 2
    expected = "shards.manifest-inconsistent" if named_wrong else "shards.foreign-file"
    assert refused.value.id == expected


def _seal(output: Path, shards: Sequence[dict[str, int]]) -> None:
    edit_manifest(
        output,
        shards=shards,
        shard_count=len(shards),
        total_tokens=sum(shard["num_tokens"] for shard in shards),
        total_documents=sum(shard["num_documents"] for shard in shards),
        rows_read=sum(shard["num_documents"] for shard in shards),
    )


def test_a_shard_that_went_away_is_refused_at_the_next_opening(tmp_path: Path) -> None:
    output = numbered_shards(tmp_path, 3)
    reader = ShardReader.open(output)
    (output / "shard-00001.bin").unlink()
    assert len(reader.read(0, reader.num_tokens)) == reader.num_tokens
    with pytest.raises(Refusal) as refused:
        ShardReader.open(output)
    assert refused.value.id == "shards.file-missing"
