"""Bands compare what is similar, as often as the formula says."""

import numpy as np
import pytest

from apr.corpus.similarity.shingles import Shingles
from apr.corpus.similarity.sketches import Bands


def pairs(similarity: float, *, count: int, size: int = 400) -> Shingles:
    """Pairs of random sets of a given Jaccard similarity, one after another."""
    rng = np.random.default_rng(int(similarity * 1000))
    shared = round(2 * similarity * size / (1 + similarity))
    sets: list[np.ndarray] = []
    for _ in range(count):
        pool = rng.integers(0, 1 << 64, 2 * size - shared, dtype=np.uint64)
        sets += [pool[:size], np.concatenate([pool[:shared], pool[size:]])]
    return Shingles(np.concatenate(sets), np.cumsum([len(each) for each in sets]))


@pytest.mark.parametrize("similarity", [0.4, 0.6, 0.7, 0.8, 0.9])
def test_pairs_are_compared_as_often_as_is_said(similarity: float) -> None:
    """Within four standard deviations of the formula."""
    bands, count = Bands.for_jaccard(0.8), 400
    keys = bands.keys(pairs(similarity, count=count))
    share = float((keys[::2] == keys[1::2]).any(axis=1).mean())
    expected = bands.probability(similarity)
    assert abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / count) + 1e-9


@pytest.mark.parametrize("jaccard", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_the_threshold_itself_is_found_99_times_of_100(jaccard: float) -> None:
    bands = Bands.for_jaccard(jaccard)
    assert bands.probability(jaccard) >= 0.99
    assert bands.num_permutations <= 128
    assert bands.probability(jaccard) > bands.probability(jaccard - 0.2)


def test_the_bands_of_the_default_are_pinned() -> None:
    bands = Bands.for_jaccard(0.8)
    assert (bands.num_bands, bands.rows_per_band) == (21, 6)
    assert bands.probability(0.8) == pytest.approx(0.998312, abs=1e-6)


def test_keys_follow_from_the_set_alone() -> None:
    bands, sets = Bands.for_jaccard(0.8), pairs(0.5, count=3)
    keys = bands.keys(sets)
    first = sets.hashes[: int(sets.ends[0])]
    shuffled = np.random.default_rng(0).permutation(np.concatenate([first, first[:50]]))
    alone = bands.keys(Shingles(shuffled, np.array([len(shuffled)])))
    assert keys.shape == (6, bands.num_bands)
    assert alone[0].tolist() == keys[0].tolist()
    assert not (keys[0] == keys[2]).any()
