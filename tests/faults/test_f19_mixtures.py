"""F19: a mixture that leaves a source out, repeats some of one, or mixes by other weights.

The audit knows each source by the numbers in it and counts from the ids that would be trained on.
It must see what other loaders did: a source dropped, a file skipped, weights ignored, rounding
that repeats, the same order every epoch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.mixture_audit import audit, numbered_source, whole

from apr.errors import UsageRefusal
from apr.shards.reader import ShardReader
from apr.train.batches import TokenRows, permute
from apr.train.mixture import BatchOrder, Mixture, mix, require_every_source
from apr.train.turns import Turns

SHARES = (Fraction(7, 10), Fraction(3, 10))
WEIGHTS = (0.7, 0.3)
BATCH_SIZE = 4


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[ShardReader]]:
    """Two sources of ten and of a thousand documents, in both orders, and ten beside ten."""
    root = tmp_path_factory.mktemp("sources")
    small = numbered_source(root / "small", 10, first=0)
    large = numbered_source(root / "large", 1000, first=small.num_tokens)
    other = numbered_source(root / "other", 10, first=small.num_tokens)
    return {1000: [small, large], 10: [small, other]}


def order_of(
    shards: Sequence[ShardReader],
    *,
    weights: Sequence[float | None] = WEIGHTS,
    kind: type[TokenRows] = TokenRows,
) -> BatchOrder:
    return BatchOrder(mix([whole(reader, kind) for reader in shards], weights), BATCH_SIZE, seed=5)


@pytest.mark.parametrize("num_documents", [10, 1000])
@pytest.mark.parametrize("swapped", [False, True])
def test_seven_tenths_and_three_tenths_are_read_as_such(
    sources: dict[int, list[ShardReader]], num_documents: int, swapped: bool
) -> None:
    shards = sources[num_documents]
    shares = SHARES[::-1] if swapped else SHARES
    order = order_of(shards, weights=[float(share) for share in shares])
    assert audit(order, shards, shares, num_steps=400) == set()
    epochs = order.mixture.epochs_after(1600)
    assert epochs[0] > 3
    assert (epochs[1] > 3) == (num_documents == 10)


def test_without_weights_all_sources_end_an_epoch_together(
    sources: dict[int, list[ShardReader]],
) -> None:
    shards = sources[1000]
    order = order_of(shards, weights=[None, None])
    total = sum(reader.num_tokens - 1 for reader in shards)
    shares = [Fraction(reader.num_tokens - 1, total) for reader in shards]
    assert audit(order, shards, shares, num_steps=400) == set()
    rows = sum(rows.num_rows for rows in order.mixture.sources)
    for num_epochs in (1, 2, 7):
        assert order.mixture.epochs_after(num_epochs * rows) == [num_epochs, num_epochs]


class OnlyTheFirst(Turns):
    """Turns of which the other sources get none."""

    def at(self, first: int, num_turns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.zeros(num_turns, np.int64), np.arange(first, first + num_turns)


class DrawnByChance(Turns):
    """Turns drawn independently, as samplers with replacement do, which drift off their shares."""

    def at(self, first: int, num_turns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        chance = np.random.default_rng(1)
        drawn = (chance.random(first + num_turns) > 0.7).astype(np.int64)
        visits = np.where(drawn, np.cumsum(drawn), np.cumsum(1 - drawn)) - 1
        return drawn[first:], visits[first:]


class StartsAgain(Turns):
    """Turns that begin every batch with the first rows of the epoch."""

    def at(self, first: int, num_turns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sources, visits = super().at(first, num_turns)
        for source in range(2):
            here = sources == source
            visits[here] -= visits[here].min(initial=first)
        return sources, visits


@dataclass(frozen=True)
class SkipsAFile(TokenRows):
    """A loader that reads one file of a source in the place of another."""

    def first_token(self, row_index: int) -> int:
        first = super().first_token(row_index)
        file_tokens = self.shards.manifest.shards[0].num_tokens
        return first if first >= file_tokens else first + file_tokens


@dataclass(frozen=True)
class OneOrder(TokenRows):
    """A loader that reads every epoch in the order of the first."""

    def visited(self, visits: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        return super().visited(visits % self.num_rows, seed=seed)


@dataclass(frozen=True)
class WithReplacement(TokenRows):
    """A loader that draws rows, and so meets some twice before others once."""

    def visited(self, visits: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        return permute(visits.astype(np.uint64), 1 << 20, key=str(seed)) % self.num_rows


@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        (SkipsAFile, "a token is read twice before another is read once"),
        (WithReplacement, "a token is read twice before another is read once"),
        (OneOrder, "two epochs in one order"),
    ],
)
def test_the_audit_sees_a_source_that_is_read_wrong(
    sources: dict[int, list[ShardReader]], planted: type[TokenRows], problem: str
) -> None:
    order = order_of(sources[10], kind=planted)
    assert problem in audit(order, sources[10], SHARES, num_steps=100)


@pytest.mark.parametrize(
    ("planted", "problem"),
    [
        (OnlyTheFirst, "a source is never read"),
        (DrawnByChance, "shares are not those asked for"),
        (StartsAgain, "a token is read twice before another is read once"),
    ],
)
def test_the_audit_sees_turns_that_are_dealt_wrong(
    sources: dict[int, list[ShardReader]], planted: type[Turns], problem: str
) -> None:
    class Planted(Mixture):
        @cached_property
        def turns(self) -> Turns:
            return planted(self.shares)

    honest = order_of(sources[10])
    mixture = Planted(honest.mixture.sources, honest.mixture.shares)
    order = BatchOrder(mixture, BATCH_SIZE, seed=5)
    assert problem in audit(order, sources[10], SHARES, num_steps=100)


def test_the_audit_sees_weights_that_are_ignored(sources: dict[int, list[ShardReader]]) -> None:
    order = order_of(sources[1000], weights=[None, None])
    found = audit(order, sources[1000], SHARES, num_steps=100)
    assert "shares are not those asked for" in found


@pytest.mark.parametrize(
    ("other", "refused"), [(0.3, False), (1e-3, False), (1e-4, True), (1e-300, True)]
)
def test_a_source_that_a_run_would_never_read_is_refused_by_name(
    sources: dict[int, list[ShardReader]], other: float, refused: bool
) -> None:
    mixture = order_of(sources[10], weights=[1.0, other]).mixture
    check: Callable[[], None] = lambda: require_every_source(mixture, num_rows=1000)  # noqa: E731
    if not refused:
        check()
        return
    with pytest.raises(UsageRefusal) as found:
        check()
    assert found.value.id == "config.mixture-share"
    assert found.value.where == str(sources[10][1].directory)


def test_any_step_is_the_same_whoever_asks_and_in_whatever_order(
    sources: dict[int, list[ShardReader]],
) -> None:
    """A resume needs the step alone, however far the run has come."""
    steps = [1, 2, 3, 57, 10**6, 1 << 40]
    forwards = {step: order_of(sources[1000]).batch(step) for step in steps}
    again = order_of(sources[1000])
    for step in reversed(steps):
        batch = again.batch(step)
        assert batch.row_indices == forwards[step].row_indices
        assert batch.source_indices == forwards[step].source_indices
        assert np.array_equal(batch.input_ids_BT, forwards[step].input_ids_BT)
        assert np.array_equal(batch.target_ids_BT, forwards[step].target_ids_BT)
    other_seed = BatchOrder(again.mixture, BATCH_SIZE, seed=6)
    assert other_seed.batch(3).row_indices != forwards[3].row_indices


def test_the_order_of_a_single_source_is_that_of_its_rows(
    sources: dict[int, list[ShardReader]],
) -> None:
    """Frozen: runs that began before there were mixtures go on in their order."""
    shards = sources[1000][1]
    rows = whole(shards)
    order = BatchOrder(mix([rows], [None]), BATCH_SIZE, seed=5)
    for step in (1, 2, 400, 10**9):
        places = np.arange((step - 1) * BATCH_SIZE, step * BATCH_SIZE, dtype=np.uint64)
        expected: list[int] = []
        for place in places.tolist():
            key = f"{shards.manifest_sha256}/5/{place // rows.num_rows}"
            at = np.array([place % rows.num_rows], np.uint64)
            expected += permute(at, rows.num_rows, key=key).tolist()
        assert list(order.batch(step).row_indices) == expected
