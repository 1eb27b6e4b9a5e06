"""Mixtures of any sizes and weights: every row once per epoch of its source, shares kept."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mixture_audit import SEQUENCE_LENGTH, numbered_source

from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows
from apr.train.mixture import BatchOrder, mix

NUM_STEPS = 12
SOURCES = st.lists(
    st.tuples(st.integers(2, 400), st.floats(1e-3, 1e3) | st.integers(1, 9)),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardReader:
    return numbered_source(tmp_path_factory.mktemp("mixtures") / "shards", 40, first=0)


@settings(max_examples=60)
@given(
    sources=SOURCES,
    weighted=st.booleans(),
    batch_size=st.integers(1, 16),
    first_step=st.integers(1, 1 << 40),
    seed=st.integers(0, 1 << 62),
)
def test_every_row_once_per_epoch_and_every_source_at_its_share(
    shards: ShardReader,
    sources: list[tuple[int, float]],
    weighted: bool,
    batch_size: int,
    first_step: int,
    seed: int,
) -> None:
    rows = [TokenRows(shards, 0, size, SEQUENCE_LENGTH) for size, _ in sources]
    weights = [float(weight) if weighted else None for _, weight in sources]
    order = BatchOrder(mix(rows, weights), batch_size, seed)
    per_token = [
        (source.num_targets if weight is None else weight) / source.num_targets
        for source, weight in zip(rows, weights, strict=True)
    ]
    asked = np.array([each * source.num_rows for each, source in zip(per_token, rows, strict=True)])
    asked /= asked.sum()
    read: list[list[int]] = [[] for _ in rows]
    tokens = [0] * len(rows)
    for step in range(1, NUM_STEPS + 1):
        batch = order.batch(step)
        assert batch.source_indices is not None
        for source, row in zip(batch.source_indices, batch.row_indices, strict=True):
            read[source].append(row)
        counted = batch.counted_tokens_by_source(len(rows))
        assert sum(counted) == batch.num_counted_tokens
        tokens = [before + more for before, more in zip(tokens, counted, strict=True)]
        counts = np.array([len(each) for each in read])
        allowed = 0.5 + asked * max(0, len(rows) - 2) / 2 + 1e-6
        assert (np.abs(counts - step * batch_size * asked) <= allowed).all()
    for source, visited, seen in zip(rows, read, tokens, strict=True):
        size = source.num_rows
        for at in range(0, len(visited), size):
            epoch = visited[at : at + size]
            assert max(Counter(epoch).values()) == 1
            assert set(epoch) <= set(range(size))
        whole_epochs = len(visited) // size
        rest = visited[whole_epochs * size :]
        short = SEQUENCE_LENGTH * size - source.num_targets
        expected = whole_epochs * source.num_targets + SEQUENCE_LENGTH * len(rest)
        assert seen == expected - (short if size - 1 in rest else 0)
    far = BatchOrder(mix(rows, weights), batch_size, seed).batch(first_step)
    assert far.row_indices == order.batch(first_step).row_indices
