"""Which tokens are in which batch: coverage, order, borders (F19)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.run_data import RunData

from apr.errors import Refusal
from apr.shards.reader import ShardReader
from apr.train.batches import IGNORED_TARGET, TokenRows, permute
from apr.train.data_plan import DataPlan, plan_data
from apr.train.mixture import BatchOrder, mix

BATCH_SIZE = 64
FROZEN_ORDER = [6, 0, 3, 2, 5, 7, 8, 4, 9, 1]


@given(size=st.integers(1, 3000), key=st.text(max_size=8))
def test_permute_is_a_bijection(size: int, key: str) -> None:
    places = np.arange(size, dtype=np.uint64)
    assert sorted(permute(places, size, key=key)) == list(range(size))


def test_permute_is_frozen() -> None:
    """Another order would make every recorded run irreproducible."""
    places = np.arange(10, dtype=np.uint64)
    assert permute(places, 10, key="frozen").tolist() == FROZEN_ORDER
    assert permute(places[3:4], 10, key="frozen").tolist() == FROZEN_ORDER[3:4]


@pytest.mark.parametrize("length", [7, 32, 100])
def test_f19_each_token_but_the_first_is_a_target_exactly_once(
    run_data: RunData, length: int
) -> None:
    shards = ShardReader.open(run_data.train)
    assert len(shards.manifest.shards) > 1
    rows = TokenRows(shards, 0, shards.num_tokens, length)
    order = BatchOrder(mix([rows], [None]), BATCH_SIZE, seed=1)
    stream = shards.read(0, shards.num_tokens)
    hits = np.zeros(shards.num_tokens, np.int64)
    visited: list[int] = []
    for step in range(1, -(-rows.num_rows // BATCH_SIZE) + 1):
        batch = order.batch(step)
        for at, row in enumerate(batch.row_indices[: rows.num_rows - len(visited)]):
            visited.append(row)
            first = row * length
            counted = int((batch.target_ids_BT[at] != IGNORED_TARGET).sum())
            targets = batch.target_ids_BT[at, :counted]
            assert np.array_equal(targets, stream[first + 1 : first + 1 + counted])
            assert np.array_equal(batch.input_ids_BT[at, :counted], stream[first : first + counted])
            hits[first + 1 : first + 1 + counted] += 1
    assert sorted(visited) == list(range(rows.num_rows))
    assert hits[0] == 0
    assert (hits[1:] == 1).all()


def test_f19_a_second_epoch_has_every_row_again_in_another_order(run_data: RunData) -> None:
    shards = ShardReader.open(run_data.val)
    rows = TokenRows(shards, 0, shards.num_tokens, 64)
    count = rows.num_rows
    epochs = [
        rows.visited(np.arange(e * count, (e + 1) * count), seed=1).tolist() for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(count))
    assert epochs[0] != epochs[1]
    assert epochs[0] != list(range(count))


def row_indices(rows: TokenRows, batch_size: int, *, seed: int, step: int) -> tuple[int, ...]:
    return BatchOrder(mix([rows], [None]), batch_size, seed).batch(step).row_indices


def test_batches_are_a_function_of_manifest_seed_and_step(run_data: RunData) -> None:
    train, val = ShardReader.open(run_data.train), ShardReader.open(run_data.val)
    rows = TokenRows(train, 0, train.num_tokens, 32)
    here = row_indices(rows, 4, seed=1, step=5)
    assert row_indices(rows, 4, seed=1, step=5) == here
    assert row_indices(rows, 4, seed=2, step=5) != here
    size = min(train.num_tokens, val.num_tokens)
    one, other = (TokenRows(shards, 0, size, 32) for shards in (train, val))
    assert row_indices(one, 4, seed=1, step=2) != row_indices(other, 4, seed=1, step=2)


def test_documents_of_a_row_are_numbered_by_their_borders(run_data: RunData) -> None:
    shards = ShardReader.open(run_data.train)
    rows = TokenRows(shards, 0, shards.num_tokens, 50)
    end = int(shards.document_ends[0])
    batch = rows.batch(np.array([end // 50]), batch_size=1)
    numbers = batch.document_numbers_BT[0]
    inside = end - (end // 50) * 50
    assert (numbers[:inside] == 0).all()
    assert (numbers[inside:] == 1).all()


def test_a_set_of_rows_has_an_identity(run_data: RunData) -> None:
    shards = ShardReader.open(run_data.val)
    rows = TokenRows(shards, 0, shards.num_tokens, 32)
    everything = np.arange(rows.num_rows)
    digest = rows.sha256(everything)
    assert rows.sha256(everything) == digest
    assert rows.sha256(everything[:-1]) != digest
    assert (
        TokenRows(shards, 0, shards.num_tokens, 33).sha256(
            np.arange(TokenRows(shards, 0, shards.num_tokens, 33).num_rows)
        )
        != digest
    )


def plan_of(shards: ShardReader, *, sequence_length: int, batch_size: int) -> DataPlan:
    return plan_data(
        [shards], None, weights=[None], sequence_length=sequence_length, batch_size=batch_size
    )


def test_the_reserve_is_whole_documents_that_training_never_reads(run_data: RunData) -> None:
    shards = ShardReader.open(run_data.train)
    plan = plan_of(shards, sequence_length=16, batch_size=2)
    (train,) = plan.train.sources
    assert plan.val_source == "reserved"
    assert plan.val.stop == train.start
    assert plan.val.stop in shards.document_ends
    assert plan.val.stop >= 16 * 2 * 16 + 1
    assert train.stop == shards.num_tokens
    assert plan.unique_train_tokens == train.stop - train.start


def test_a_corpus_too_small_to_reserve_from_is_refused(run_data: RunData) -> None:
    shards = ShardReader.open(run_data.train)
    with pytest.raises(Refusal) as refused:
        plan_of(shards, sequence_length=2048, batch_size=64)
    assert refused.value.id == "preflight.val-empty"
    assert Path(refused.value.where) == run_data.train
